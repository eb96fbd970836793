"""The functions of `program.ops` in NumPy, a file for each of its files."""
