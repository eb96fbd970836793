"""What ``compare.py`` is made of: cases, answers, timing, report, and one adapter per library.

An adapter (``peer_*.py``) imports its library lazily and has

- ``threads(n)``: a context in which the library computes with n threads;
- ``prepare(case)``: the `Call` that computes the case once, or `UnsupportedError`.
"""
