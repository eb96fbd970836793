"""Numbers as text that keeps its significant digits."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["decimals", "places", "short", "unit"]


def short(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits, whichever way is shorter; zero as a bare 0.

    >>> short(0.123456), short(-0.000123456), short(0.0), short(1234567.0), short(0.5)
    ('0.123', '-1.23e-4', '0', '1.23e6', '0.5')
    """
    if not value:
        return "0"
    plain = f"{value:.{digits}g}"
    mantissa, e, exponent = (plain if "e" in plain else f"{value:.{digits - 1}e}").partition("e")
    power = (
        f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent or 0)}"
    )
    return power if e and ("e" in plain or len(power) < len(plain)) else plain


def decimals(values: np.ndarray, least: int, most: int = 6) -> int:
    """Decimal places with which the smallest number that is not zero keeps two digits.

    >>> decimals(np.array([0.5, 0.0]), 2), decimals(np.array([0.5, 0.0012]), 2)
    (2, 4)
    """
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    if not sizes.size:
        return least
    return min(max(least, 1 - math.floor(math.log10(float(sizes.min())))), most)


def unit(values: np.ndarray) -> int:
    """The power of ten in which a grid is printed: 0 where its largest number is easy to read.

    >>> unit(np.array([0.00031, 0.0])), unit(np.array([0.5])), unit(np.array([52000.0]))
    (-4, 0, 4)
    """
    sizes = np.abs(values[np.isfinite(values)])
    peak = float(sizes.max()) if sizes.size else 0.0
    power = math.floor(math.log10(peak)) if peak else 0
    return power if not -1 <= power <= 1 else 0


def places(value: float, power: int, digits: int, signed: bool) -> str:
    """A number in units of 10**power; one too small for its decimals keeps a digit, as 4e-5.

    >>> places(0.00031, -4, 2, True), places(2e-9, -4, 2, True), places(0.0, 0, 2, True)
    ('+3.10', '+2e-5', '0')
    """
    if not value:
        return "0"
    scaled = value / 10.0**power
    if abs(scaled) < 0.95 * 10.0 ** (1 - digits) and math.isfinite(scaled):
        mantissa, _, exponent = f"{scaled:{'+' if signed else ''}.0e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{scaled:{'+' if signed else ''}.{digits}f}"
