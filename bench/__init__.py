"""Measurements, printed as ratios of one run against supervisord and circus started beside the
agent.
"""
