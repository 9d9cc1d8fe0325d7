"""Build of the package; what there is to know stands in setup.cfg and pyproject.toml."""

from setuptools import setup

setup()
