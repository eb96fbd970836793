"""The grammar of problem descriptors, see `fastconv.problems`: text to checked fields."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["EXAMPLE", "Padding", "error", "parse_fields"]

Padding = tuple[tuple[int, int], ...] | str

EXAMPLE = "m64 h32w32c32 f32 k3x3 s1 p1"
DTYPES = ("float16", "float32", "float64")
NAMED_PADDINGS = ("same", "valid", "full")

_NAME = re.compile(r"[A-Za-z_][\w.+/-]*:")
_INPUT = re.compile(r"(?:(?:d(\d+))?h(\d+))?w(\d+)c(\d+)")
_LISTS = re.compile(r"([ksd])(\d+(?:x\d+)*)")
_PADS = re.compile(r"p(\d+(?::\d+)?(?:x\d+(?::\d+)?)*)")
_SCALARS = re.compile(r"([mfg])(\d+)")

_EXPECTED = {
    "m": "the batch, such as m64",
    "h": "the input, such as h32w32c32 (2-D), w100c3 (1-D) or d8h16w16c4 (3-D)",
    "f": "the number of filters, such as f32",
    "k": "the window, such as k3x3 or k3",
    "s": "the stride, such as s1 or s2x1",
    "p": "the padding, such as p1, p1x0, p0:1x0:1, psame, pvalid or pfull",
    "d": "the dilation, such as d2 or d2x1 (or a 3-D input such as d8h16w16c4)",
    "g": "the groups, such as g4",
    "w": "the 1-D input, such as w100c3",
}


def parse_fields(text: str) -> dict[str, Any]:
    """Fields of a `fastconv.problems.Problem` from its descriptor.

    Raises
    ------
    ValueError
        If a word is not understood, repeated or missing; the message says what was expected.

    Examples
    --------
    >>> fields = parse_fields("c1: m64 h28w28c1 f6 k5 p2")
    >>> fields["size"], fields["window"], fields["padding"]
    ((28, 28), (5, 5), ((2, 2), (2, 2)))
    """
    words = text.split()
    name = words.pop(0)[:-1] if words and _NAME.fullmatch(words[0]) else ""
    found: dict[str, str] = {}
    for word in words:
        key, value = _classify(word, text)
        if key in found:
            raise error(text, f"'{word}' repeats what was given before; give {key} once")
        found[key] = value
    for key, what in (("input", "the input"), ("f", "f"), ("k", "k")):
        if key not in found:
            raise error(
                text, f"{what} is missing; expected {_EXPECTED['h' if key == 'input' else key]}"
            )
    *size, channels = (int(n) for n in found["input"].split("x"))
    rank = len(size)
    groups, filters = int(found.get("g", 1)), int(found["f"])
    if groups < 1 or channels % groups or filters % groups:
        raise error(text, f"g{groups} must be positive and divide the channels and the filters")
    return {
        "name": name,
        "m": int(found.get("m", 1)),
        "size": tuple(size),
        "channels": channels,
        "filters": filters,
        "window": _per_axis("k", found["k"], rank, text),
        "stride": _per_axis("s", found.get("s", "1"), rank, text),
        "padding": _padding(found.get("p", "0"), rank, text),
        "dilation": _per_axis("d", found.get("d", "1"), rank, text),
        "groups": groups,
        "dtype": found.get("dtype", "float32"),
    }


def error(text: str, message: str) -> ValueError:
    """A ValueError that begins with the descriptor at fault."""
    return ValueError(f"problem '{text}': {message}")


def _classify(word: str, text: str) -> tuple[str, str]:
    """Split a word into its key ('m', 'input', 'f', 'k', 's', 'p', 'd', 'g', 'dtype') and value."""
    if word in DTYPES:
        return "dtype", word
    if match := _INPUT.fullmatch(word):
        return "input", "x".join(n for n in match.groups() if n is not None)
    if match := _SCALARS.fullmatch(word) or _LISTS.fullmatch(word):
        return match[1], match[2]
    if match := _PADS.fullmatch(word):
        return "p", match[1]
    if word[:1] == "p" and word[1:] in NAMED_PADDINGS:
        return "p", word[1:]
    if word.startswith("float"):
        raise error(text, f"'{word}' is not a dtype; expected one of {', '.join(DTYPES)}")
    expected = _EXPECTED.get(word[0], f"words as in '{EXAMPLE}'")
    raise error(text, f"'{word}' is not understood; expected {expected}")


def _entries(key: str, value: str, rank: int, text: str) -> tuple[str, ...]:
    """('3', '3') for '3' or '3x3'; ('0:1', '0:1') for '0:1'."""
    entries = tuple(value.split("x"))
    if len(entries) == 1:
        entries *= rank
    if len(entries) != rank:
        axes, allowed = ("axis", "1") if rank == 1 else ("axes", f"1 or {rank}")
        raise error(
            text,
            f"'{key}{value}' has {len(entries)} numbers, but the input has {rank} spatial {axes}; "
            f"expected {allowed}",
        )
    return entries


def _per_axis(key: str, value: str, rank: int, text: str) -> tuple[int, ...]:
    """(3, 3) for '3' or '3x3'."""
    return tuple(int(entry) for entry in _entries(key, value, rank, text))


def _padding(value: str, rank: int, text: str) -> Padding:
    """((0, 1), (0, 1)) for '0:1' or '0:1x0:1'; 'same' for 'same'."""
    if value in NAMED_PADDINGS:
        return value
    pairs = (entry.partition(":") for entry in _entries("p", value, rank, text))
    return tuple((int(lo), int(hi or lo)) for lo, _, hi in pairs)
