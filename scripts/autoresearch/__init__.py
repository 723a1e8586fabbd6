"""The core of autoresearch: everything the scripts beside this package do."""

__version__ = "0.1.0"
