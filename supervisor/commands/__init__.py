"""The commands of `waagent`: what people and init systems call."""
