"""The worker that owns the transport key and opens the platform's certificates."""
