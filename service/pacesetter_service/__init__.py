"""Pacesetter's service: it owns the learning rates of running trainings. Read `__main__` first."""

from importlib.metadata import version

__version__ = version("pacesetter")
