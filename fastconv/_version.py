"""The version: what the build reads, and what kernels on disk belong to."""

__version__ = "0.1.0"
