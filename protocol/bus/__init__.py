"""Worker to worker: msgpack envelopes over ZeroMQ (design in docs/architecture.md)."""
