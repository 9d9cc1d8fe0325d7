"""The privileged core: supervisor, zygote, and the commands `waagent` and `waagent-ps`."""
