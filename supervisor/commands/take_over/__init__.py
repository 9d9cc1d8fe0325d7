"""Taking over a VM from the agent that ran on it before: what it left, the plan, its execution."""
