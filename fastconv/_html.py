"""Small pieces of HTML for notebooks: tables, a curve, grey images. Whole in themselves."""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["curve", "grey_image", "table"]

COLOURS = ("#2962be", "#d64529", "#149a5b", "#7570b3")
CELL = "text-align:left;padding:2px 10px 2px 0;border:0"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with a title; what stands in it is escaped.

    Examples
    --------
    >>> "<b>a &lt; b</b>" in table("a < b", [], [["m", 2]])
    True
    """
    lines = [f"<div><b>{html.escape(title)}</b>", '<table style="border-collapse:collapse">']
    if head:
        cells = "".join(f'<th style="{CELL}">{html.escape(name)}</th>' for name in head)
        lines.append(f"<tr>{cells}</tr>")
    for row in rows:
        cells = "".join(f'<td style="{CELL}">{html.escape(str(value))}</td>' for value in row)
        lines.append(f"<tr>{cells}</tr>")
    return "\n".join([*lines, "</table></div>"])


def curve(title: str, series: Mapping[str, Sequence[float | None]], size: tuple[int, int]) -> str:
    """Lines over the epochs 1, 2, ... as SVG; what is None or not finite is left out.

    Examples
    --------
    >>> curve("loss", {"loss": [0.5, 0.25, None]}, (300, 160)).count("<circle")
    2
    """
    width, height = size
    points = {
        name: [(k + 1, float(v)) for k, v in enumerate(values) if v is not None and np.isfinite(v)]
        for name, values in series.items()
    }
    points = {name: line for name, line in points.items() if line}
    values = [v for line in points.values() for _, v in line]
    if not values:
        return ""
    low, high = min(values), max(values)
    room = (high - low) or max(abs(high), 1e-12)
    epochs = max(k for line in points.values() for k, _ in line)
    left, top, right, bottom = 52, 24, width - 12, height - 22

    def place(k: int, v: float) -> tuple[float, float]:
        x = left + (right - left) * (k - 1) / max(epochs - 1, 1)
        return round(x, 1), round(bottom - (bottom - top) * (v - low) / room, 1)

    text = 'font-family="sans-serif" font-size="11"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'style="background:#fff">',
        f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#999"/>',
        f'<text x="{left}" y="14" {text} font-weight="bold">{html.escape(title)}</text>',
        f'<text x="{left - 5}" y="{top + 4}" {text} text-anchor="end">{high:.3g}</text>',
        f'<text x="{left - 5}" y="{bottom}" {text} text-anchor="end">{low:.3g}</text>',
        f'<text x="{left}" y="{height - 6}" {text} fill="#555">1</text>',
        f'<text x="{right}" y="{height - 6}" {text} text-anchor="end" fill="#555">'
        f"epoch {epochs}</text>",
    ]
    for k, (name, line) in enumerate(points.items()):
        colour, places = COLOURS[k % len(COLOURS)], [place(*point) for point in line]
        path = " ".join(f"{x},{y}" for x, y in places)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
        parts += [
            f'<circle cx="{x}" cy="{y}" r="2" fill="{colour}"><title>{html.escape(name)} {v:.4g}, '
            f"epoch {epoch}</title></circle>"
            for (x, y), (epoch, v) in zip(places, line, strict=True)
        ]
        parts.append(
            f'<text x="{right - 80 * k}" y="14" {text} text-anchor="end" fill="{colour}">'
            f"{html.escape(name)}</text>"
        )
    return "".join([*parts, "</svg>"])


def grey_image(pixels: np.ndarray, side: int, title: str) -> str:
    """An image (H, W) as an <img>, its largest number black, its smallest white.

    Examples
    --------
    >>> grey_image(np.eye(8), 56, "7").startswith('<img width="56" title="7" src="data:image/png')
    True
    """
    low, high = float(pixels.min()), float(pixels.max())
    scaled = (pixels - low) / ((high - low) or 1.0)
    grey = (255 - 255 * np.clip(np.nan_to_num(scaled), 0, 1)).astype(np.uint8)
    H, W = grey.shape
    rows = b"".join(b"\0" + row.tobytes() for row in grey)  # each behind its filter: none
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", W, H, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    source = base64.b64encode(png).decode()
    style = "image-rendering:pixelated;margin:2px;border:1px solid #ddd"
    return (
        f'<img width="{side}" title="{html.escape(title)}" '
        f'src="data:image/png;base64,{source}" style="{style}">'
    )
