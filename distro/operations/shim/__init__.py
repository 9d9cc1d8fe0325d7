"""The program that runs one operation and outlives everybody else."""
