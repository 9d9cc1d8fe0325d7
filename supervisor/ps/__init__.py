"""`waagent-ps`: what the agent is doing, for anyone."""
