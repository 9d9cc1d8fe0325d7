"""The handler contract as data: names, manifest, settings, environment, status (spec:
extensions).
"""
