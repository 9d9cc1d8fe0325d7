"""What crosses between agent and platform: WireServer, health, HostGAPlugin, storage (spec:
wire).
"""
