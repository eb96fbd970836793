"""Sums of products as one chain in their dtype, and exactly: what rounding is measured against.

A fixed thing to compare with: a BLAS sums in as many chains as suit its kernel for a processor and
a shape, so its errors differ between machines, by a factor of 2.4 for narrow results.
"""

from __future__ import annotations

import numpy as np

__all__ = ["chain_errors"]

# Veltkamp's constant: splits the 53 bits of a float64 in two halves whose products are exact.
SPLIT = 2.0**27 + 1


def chain_errors(
    left: np.ndarray, right: np.ndarray, results: np.ndarray, fused: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of `results`, and of ``left @ right`` where each sum is one chain in the dtype.

    Parameters
    ----------
    left, right : array (G, rows, K) and (G, K, columns)
        Of float32 or float64.
    results : array (G, rows, columns)
        What is said to be the product.
    fused : bool
        Whether each step of the chain rounds once, ``fma(left, right, sum)``, or the product, too.

    Returns
    -------
    ours, chains : array (G, rows, columns) of float64

    Notes
    -----
    The exact sums are those of Ogita, Rump and Oishi, "Accurate sum and dot product" (2005): the
    rounding error of each product and each addition is itself a float64, and is summed apart.

    Examples
    --------
    >>> ones = np.ones((1, 1, 3), np.float32)
    >>> tiny = np.array([[[1.0], [2.0**-24], [2.0**-24]]], np.float32)
    >>> ours, chains = chain_errors(ones, tiny, np.ones((1, 1, 1), np.float32), True)
    >>> float(ours[0, 0, 0]) == float(chains[0, 0, 0]) == -(2.0**-23)
    True
    """
    dtype = results.dtype
    total, low = np.zeros(results.shape), np.zeros(results.shape)
    chain = np.zeros(results.shape, dtype)
    for k in range(left.shape[2]):
        product, rest = _multiplied(left[:, :, k, None], right[:, k, None, :])
        total, lost = _added(total, product)
        low += lost + rest
        if dtype == np.float32:
            step = product if fused else product.astype(np.float32)
            chain = (chain + step).astype(np.float32)
        elif fused:
            chain, lost = _added(chain, product)
            chain = chain + (lost + rest)
        else:
            chain = chain + product
    return (results - total) - low, (chain - total) - low


def _multiplied(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray | float]:
    """``a * b`` as a float64 and the rest: the rounding error, 0 for float32."""
    if a.dtype == np.float32:
        return a.astype(np.float64) * b, 0.0
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    rest = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    return product, rest


def _halves(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    high = SPLIT * a - (SPLIT * a - a)
    return high, a - high


def _added(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``a + b`` as a float64 and its rounding error (Knuth's TwoSum)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)
