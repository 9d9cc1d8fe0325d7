"""The emulated platform: WireServer, HostGAPlugin, storage and metadata service, with a recorder
and switches.
"""
