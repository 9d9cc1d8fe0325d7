"""Carries out what the goal state wants of VM extensions: plans, starts and tracks operations,
reports (spec: extensions).
"""
