"""Leak detection for industrial inspection: from an experiment file to a model that a robot can be trusted with."""

__version__ = "0.1.0"
