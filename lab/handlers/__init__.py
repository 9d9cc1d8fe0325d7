"""Sample handler packages: built as a publisher would, for tests, the demo and authors of
handlers.
"""
