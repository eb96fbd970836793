"""The words that the compiled loops read: planned and written once for a geometry."""
