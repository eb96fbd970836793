"""The walk as HTML for a notebook or a browser: a cell under the mouse shows where it came from.

Everything is in the text itself: nothing is loaded from anywhere, and without scripts it still is a
page of equations and numbers.
"""

from __future__ import annotations

import html
import json
import uuid
from collections.abc import Iterator
from importlib import resources
from typing import Any

import numpy as np

from fastconv.explain.equations import LEGENDS, Step
from fastconv.explain.links import Link
from fastconv.explain.numbers import short
from fastconv.explain.trace import Node, Trace, winners
from fastconv.nn import Conv

__all__ = ["page"]

PATTERNS = 4
CHANNELS = 4
TINY = 16  # grids with more columns have cells without numbers


def page(trace: Trace, steps: list[Step], title: str, source: str) -> str:
    """A piece of HTML, whole in itself.

    Parameters
    ----------
    trace : Trace
    steps : list of Step
    title : str
        What the network is called.
    source : str
        Where the images come from.
    """
    key = f"fastconv-{uuid.uuid4().hex[:12]}"
    assets = resources.files("fastconv.explain")
    style = (assets / "page.css").read_text(encoding="utf-8")
    script = (assets / "page.js").read_text(encoding="utf-8")
    data = {"links": [*_links(trace)]}
    parts = [f'<div class="fastconv-walk" id="{key}">', f"<style>{style}</style>"]
    parts += [f"<h3>Forward and backward through {html.escape(title)}</h3>"]
    parts += [f"<p>The images: {html.escape(source)}. {_labels(trace)}</p>", _choice(trace, key)]
    parts += [f"<p>{html.escape(LEGENDS[title])}</p>"] if title in LEGENDS else []
    hint = "Point at a cell: where it came from is green, where it went is orange."
    parts += [f'<div class="said">{hint}</div>']
    for backward, head in ((False, "forward"), (True, "backward: the gradients of the loss")):
        parts += [f"<h4>{head}</h4>", '<div class="steps">']
        chosen = [step for step in steps if step.backward == backward]
        parts += [_figure(trace, step) for step in chosen]
        parts += ["</div>"]
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    call = f'{script}\nfastconvWalk(document.getElementById("{key}"), {text});'
    return "\n".join([*parts, f"<script>(function () {{\n{call}\n}})();</script>", "</div>"])


def _labels(trace: Trace) -> str:
    p = trace.arrays[trace.probability]
    rows = []
    for n, label in enumerate(trace.arrays["y"][:PATTERNS]):
        right = p[n, 0] if p.shape[1] == 1 else p[n, int(label)]
        right = 1 - right if p.shape[1] == 1 and label == 0 else right
        which = f"pattern {n}: " if len(p) > 1 else ""
        rows.append(f"{which}label {int(label)}, given the probability {short(float(right))}")
    return html.escape("; ".join(rows)) + f". Loss {short(trace.arrays['loss'], 4)}."


def _choice(trace: Trace, key: str) -> str:
    m = len(trace.arrays["x"])
    if m == 1:
        return ""
    boxes = [
        f'<label><input type="radio" name="{key}-n" value="{n}"{" checked" * (n == 0)}> '
        f"pattern {n}</label>"
        for n in range(min(m, PATTERNS))
    ]
    more = f" (of {m})" if m > PATTERNS else ""
    return f'<p class="choice">{" ".join(boxes)}{more}</p>'


def _figure(trace: Trace, step: Step) -> str:
    node, value = step.node, trace.arrays[step.name]
    tables = [*_tables(step.name, value, winners(trace, step.name))]
    weight = f"w{node.number}"
    if not step.backward and step.name == node.name and isinstance(node.layer, Conv):
        tables = [*_tables(weight, trace.arrays[weight]), *tables]
        if (bias := trace.arrays.get(f"b{node.number}")) is not None:
            tables += _tables(f"b{node.number}", bias)
    if step.backward and f"{step.name}_full" in trace.arrays:
        flipped = f"{weight}_flipped"
        tables = [*_tables(flipped, trace.arrays[flipped]), *tables]
    words = html.escape(step.words.replace("(*)", "(underlined)"))
    equal = ""
    if step.backward and f"{step.name}_col2im" in trace.arrays:
        error = np.abs(value - trace.arrays[f"{step.name}_col2im"]).max()
        equal = (
            f" The same by col2im({html.escape(node.gradient)} @ {weight}.T): the largest "
            f"difference is {short(float(error), 1)}."
        )
    return (
        f'<figure><figcaption><b>{html.escape(step.equation)}</b><span class="words">{words}'
        f'{equal}</span></figcaption><div class="tables">{"".join(tables)}</div></figure>'
    )


def _tables(name: str, value: Any, won: np.ndarray | None = None) -> Iterator[str]:
    """One table a channel (of a kernel: a channel and filter) and pattern; `won` is underlined."""
    array = np.asarray(value, np.float64)
    peak = float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) or 1.0
    if name.lstrip("d").startswith("w"):
        pairs = list(np.ndindex(array.shape[2:])) if array.ndim == 4 else [None]
        for pair in pairs[: CHANNELS * 2]:
            grid = array if pair is None else array[:, :, pair[0], pair[1]]
            place = (0, *(pair or (0, 0)))
            head = name if pair is None else f"{name}[:,:,{pair[0]},{pair[1]}]"
            yield _table(name, grid, place, head, peak, "")
        return
    if array.ndim == 4:
        for n in range(min(len(array), PATTERNS)):
            for c in range(min(array.shape[3], CHANNELS)):
                head = f"{name}[{n},:,:,{c}]"
                marks = None if won is None else won[n, :, :, c]
                pattern = f' data-n="{n}"'
                yield _table(name, array[n, :, :, c], (n, c, 0), head, peak, pattern, marks)
        return
    rows = array.reshape(1, -1) if array.ndim < 2 else array
    for n in range(min(len(rows), PATTERNS)):
        pattern = "" if array.ndim < 2 else f' data-n="{n}"'
        yield _table(name, rows[n : n + 1], (n, 0, 0), name, peak, pattern)


def _table(
    name: str,
    grid: np.ndarray,
    place: tuple[int, int, int],
    head: str,
    peak: float,
    pattern: str,
    won: np.ndarray | None = None,
) -> str:
    tiny = grid.shape[1] > TINY
    rows = []
    for i, row in enumerate(grid):
        cells = [
            f'<td data-p="{i},{j}" data-v="{v:.6g}" style="background:{_colour(name, v, peak)}"'
            f"{' class=win' if won is not None and won[i, j] else ''}>"
            f"{'' if tiny else short(float(v), 2)}</td>"
            for j, v in enumerate(row)
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    n, c, f = place
    hidden = ' style="display:none"' if pattern and n else ""
    return (
        f'<div class="grid"{pattern}{hidden}><div class="name">{html.escape(head)}</div>'
        f'<table class="{"tiny" if tiny else "plain"}" data-a="{html.escape(name)}" '
        f'data-c="{n},{c},{f}">{"".join(rows)}</table></div>'
    )


def _colour(name: str, value: float, peak: float) -> str:
    """Grey for pixels; red above zero, blue below."""
    if not np.isfinite(value):
        return "#ffffff"
    strength = round(min(abs(value) / peak, 1.0) * (0.75 if name == "x" else 0.6), 3)
    if not strength:
        return "transparent"
    colour = "60,60,60" if name == "x" else "214,69,41" if value > 0 else "41,98,190"
    return f"rgba({colour},{strength})"


def _links(trace: Trace) -> Iterator[dict[str, Any]]:
    """What the script marks: from one array's cells to those of another."""
    for node in trace.nodes[1:]:
        if node.link is None or node.source is None:
            continue
        shown = _shown(trace, node)
        yield _rule(trace, node, node.link, node.name, node.source.name, False, shown)
        if node.source.layer is not None:
            yield _rule(trace, node, node.link, node.gradient, node.source.gradient, True, shown)
        if node.link.kind == "window":  # the patch that an error multiplies in dw
            yield _rule(trace, node, node.link, node.gradient, node.source.name, False, False)
    last = trace.nodes[-1]
    for name in (trace.probability, last.gradient):
        yield {"target": name, "source": last.name, "kind": "all"}


def _shown(trace: Trace, node: Node) -> bool:
    """Whether all cells that a number of the node is made of are on the page."""
    source: np.ndarray = trace.arrays[node.source.name if node.source else "x"]
    value: np.ndarray = trace.arrays[node.name]
    few = all(a.ndim == 4 and a.shape[3] <= CHANNELS for a in (source, value))
    return few and source.shape[3] * value.shape[3] <= CHANNELS * 2


def _rule(
    trace: Trace, node: Node, link: Link, target: str, source: str, backward: bool, shown: bool
) -> dict[str, Any]:
    rule: dict[str, Any] = {"target": target, "source": source, "kind": link.kind}
    if link.kind in ("window", "pool"):
        rule |= {"k": link.window, "s": link.stride, "d": link.dilation, "lo": link.low}
    if backward:
        rule["back"] = True
    if link.kind == "window" and shown:
        rule["w"] = f"w{node.number}"
        if f"b{node.number}" in trace.arrays and not backward:
            rule["b"] = f"b{node.number}"
    if link.winners is not None and node.source is not None:
        winners = trace.arrays[link.winners][:PATTERNS, :, :, :CHANNELS]
        rule["winners"] = winners.transpose(0, 3, 1, 2).tolist()
        rule["width"] = int(trace.arrays[node.source.name].shape[2])
    return rule
