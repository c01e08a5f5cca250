"""The version, and nothing else: the build reads it here, and what writes it into a file imports no more than this."""

__all__ = ["__version__"]

__version__ = "0.1.0"
