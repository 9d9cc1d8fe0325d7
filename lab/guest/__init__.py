"""A real Debian with systemd under emulation, on the emulated platform."""
