"""`waagent-lab extension`: a handler in a box on this machine, and what is known to break."""
