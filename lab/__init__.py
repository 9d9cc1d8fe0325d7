"""An emulated platform for development: fabric, boot DVD, throw-away machine."""
