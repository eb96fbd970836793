"""Making machine code and keeping it on disk."""
