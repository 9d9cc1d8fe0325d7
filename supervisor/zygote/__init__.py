"""The process that forks workers, and what a new worker does before its own code runs."""
