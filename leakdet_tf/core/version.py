"""The package's version, for what is written beside models and pictures."""

__version__ = "0.1.0"
