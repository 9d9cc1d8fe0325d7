"""Makes the resource disk usable, and gives it swap."""
