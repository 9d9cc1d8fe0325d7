"""The worker that knows the network around the VM: where the WireServer is."""
