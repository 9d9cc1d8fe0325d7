"""Real extension handlers, unmodified, under our agent and under its predecessor: `make handlers`. Their
code is fetched by whoever runs it and is no part of this project.
"""
