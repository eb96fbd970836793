"""One file per library, imported only where the library is wanted: ImportError if it is missing.

An adapter is a class with

- ``threads(n)``: a context in which the library computes with n threads;
- ``prepare(case)``: the `Call` that computes the case, or `UnsupportedError`.
"""
