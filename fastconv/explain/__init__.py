"""Images through a small network and back, number by number: arrays, text, a picture, a page.

>>> import numpy as np
>>> from fastconv.explain import explain
>>> e = explain(np.eye(8), 1)  # print(e), e.plot(), or just e in a notebook
>>> e["winners"].shape, e["da1"].shape
((1, 3, 3, 1), (1, 6, 6, 1))

`python -m fastconv explain` is its command line.
"""

from fastconv.explain.explanation import Explanation, explain

__all__ = ["Explanation", "explain"]
