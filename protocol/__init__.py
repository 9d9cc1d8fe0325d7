"""Everything that crosses the boundary of a process or of the machine."""
