"""waagent: a guest agent for Linux VMs on Azure; a small supervisor and isolated workers."""

__version__ = "3.0.0"
