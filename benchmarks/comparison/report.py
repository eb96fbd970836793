"""What the comparison prints: rows, geometric means, worst rows; and the CSV file."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from comparison.rows import BASELINE, NOISY, OURS, Row
from fastconv.cli.output import print_table, threads_text

LABELS = {OURS: OURS, BASELINE: "PyTorch", "jax": "JAX", "onnxruntime": "ONNX RT", "numpy": "NumPy"}
LEGEND = """\
ms: medians of interleaved calls, one table row at a time. {x}: its time over fastconv's,
  above 1 where fastconv is faster; ~ where a median is more than {noisy} times the best: another
  process was running, do not trust it. of best: the ratio of the shortest times instead.
{more}
-: not computed by this library. wrong: the answer was wrong, so it was not timed."""


def geometric_mean(values: Iterable[float]) -> float:
    """Geometric mean of positive numbers, NaN of none.

    >>> geometric_mean([1.0, 4.0])
    2.0
    """
    values = list(values)
    return statistics.geometric_mean(values) if values else math.nan


def print_rows(rows: Sequence[Row], libraries: Iterable[str]) -> None:
    """One line per case."""
    tried = {name for row in rows for name in (*row.seconds, *row.wrong, *row.failed)}
    shown = [name for name in libraries if name in tried]
    columns = ["problem", "product", *(f"{_label(name)} ms" for name in shown)]
    columns += [f"x {_label(rows[0].baseline)}", "of best"]
    conv, images = (any(getattr(row.case, name) for row in rows) for name in ("flops", "images"))
    measured = [name for name in shown if any(name in row.memory for row in rows)]
    columns += ["GFLOP/s", "of peak"] * conv + ["images/s", "a thread"] * images
    columns += [f"{_label(name)} MiB" for name in measured]
    lines = []
    for row in rows:
        line = [row.case.name, row.case.product, *(_milliseconds(row, name) for name in shown)]
        line += ["~" * bool(row.noisy and row.ratio()) + _number(row.ratio(), "{:.2f}")]
        line += [_number(row.ratio(of=min), "{:.2f}")]
        if conv:
            line += [_number(row.gflops(), "{:.1f}"), _number(row.share(), "{:.0%}")]
        if images:
            rate = row.rate()
            line += [_number(rate, "{:.0f}"), _number(rate and rate / row.threads, "{:.0f}")]
        line += [_number(row.memory.get(name), "{:.1f}", 2**-20) for name in measured]
        lines.append(line)
    print_table(columns, lines, left=2)
    print()


def _label(library: str) -> str:
    return LABELS.get(library, library)


def _milliseconds(row: Row, library: str) -> str:
    if library in row.wrong or library in row.failed:
        return "wrong" if library in row.wrong else "failed"
    seconds = row.time(library)
    return _number(seconds, "{:.3g}" if seconds and seconds < 1 else "{:.0f}", 1e3)


def _number(value: float | None, form: str, scale: float = 1) -> str:
    return "-" if value is None else form.format(value * scale)


def _groups(rows: Iterable[Row], *keys: str) -> dict[tuple, list[Row]]:
    """Rows by what they have in common."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        key = tuple(row.threads if k == "threads" else getattr(row.case, k) for k in keys)
        groups.setdefault(key, []).append(row)
    return groups


def print_summary(rows: Sequence[Row], libraries: Iterable[str]) -> None:
    """Geometric means of the ratios per table and product, and the worst row of each."""
    peers = [name for name in libraries if name != OURS and any(r.ratio(name) for r in rows)]
    if not peers:
        print("no other library was timed: no ratios")
        return
    baseline = rows[0].baseline
    first = baseline if baseline in peers else peers[0]
    kind = ("product", "threads", "dtype")
    columns = ["table", *kind, "rows", *(f"x {_label(name)}" for name in peers)]
    columns += ["of best", "worst row", f"x {_label(first)}"]
    groups = _groups(rows, "table", *kind)
    for key, group in _groups(rows, *kind).items():
        if len({row.case.table for row in group}) > 1:
            groups["all tables", *key] = group
    if rows[0].case.images:  # by batches
        named = _groups(rows, "name", *kind)
        groups |= {key: group for key, group in named.items() if len(group) > 1}
    lines = []
    for key, group in groups.items():
        line = [*map(str, key), str(len(group))]
        line += [_mean(row.ratio(name) for row in group) for name in peers]
        line += [_mean(row.ratio(first, min) for row in group)]
        worst = worst_row(group, first)
        line += [worst.case.name, f"{worst.ratio(first):.2f}"] if worst else ["-", "-"]
        lines.append(line)
    print("geometric means of (time of the library / time of fastconv)")
    print_table(columns, lines, left=2)
    worst = worst_row(rows, first)
    if worst:
        below = sum(1 for row in rows if (row.ratio(first) or math.inf) < 1)
        print(
            f"worst row: {_place(worst)}: {worst.ratio(first):.2f} x {_label(first)}; "
            f"{below} of {len(rows)} rows below 1"
        )


def _mean(values: Iterable[float | None]) -> str:
    """Geometric mean of the ratios; how many there are, if not all."""
    ratios = list(values)
    known = [ratio for ratio in ratios if ratio is not None]
    if not known:
        return "-"
    missing = f" ({len(known)} rows)" if len(known) < len(ratios) else ""
    return f"{geometric_mean(known):.2f}{missing}"


def worst_row(rows: Iterable[Row], library: str | None = None) -> Row | None:
    """The row with the smallest ratio, None if no row has one."""
    known = [row for row in rows if row.ratio(library) is not None]
    return min(known, key=lambda row: row.ratio(library) or 0.0, default=None)


def print_notes(rows: Sequence[Row], legend: str) -> None:
    """Peaks, legend, reasons for gaps, wrong answers."""
    print()
    for (threads, dtype), group in _groups(rows, "threads", "dtype").items():
        if peak := group[0].peak:
            print(
                f"peak: numpy.matmul {dtype}, {threads_text(threads)}: {peak.gflops:.1f} GFLOP/s "
                f"at {peak.size}x{peak.size}"
            )
    print(LEGEND.format(x=f"x {_label(rows[0].baseline)}", noisy=NOISY, more=legend))
    large = _groups((r for r in rows if r.case.flops and "numpy" in r.left_out), "name")
    for (name,), group in large.items():
        print(f"NumPy left out of {name}: {group[0].left_out['numpy']}")
    for row in rows:
        for word, faults in (("WRONG", row.wrong), ("failed", row.failed)):
            for library, fault in faults.items():
                print(f"{word}: {library}, {_place(row)}: {fault}")
    noisy = sum(row.noisy for row in rows)
    if noisy:
        print(f"note: {noisy} of {len(rows)} rows are noisy (~): run them again on an idle machine")


def _place(row: Row) -> str:
    """Which case it is, for a sentence."""
    case = row.case
    return (
        f"{case.table} {case.name} ({case.descriptor}), {case.product}, "
        f"{threads_text(row.threads)}, {case.dtype}"
    )


def csv_lines(rows: Iterable[Row]) -> list[dict[str, object]]:
    """One line per case and library."""
    return [
        _csv_line(row, library)
        for row in rows
        for library in (*row.seconds, *row.wrong, *row.failed, *row.left_out)
    ]


def _csv_line(row: Row, library: str) -> dict[str, object]:
    case, median, best = row.case, row.time(library), row.time(library, min)
    statuses = {"wrong": row.wrong, "failed": row.failed, "left out": row.left_out}
    status = next((word for word, names in statuses.items() if library in names), "timed")
    return {
        "table": case.table,
        "name": case.name.removesuffix("*"),
        "problem": case.descriptor,
        "product": case.product,
        "dtype": case.dtype,
        "threads": row.threads,
        "library": library,
        "status": status,
        "milliseconds": median and 1e3 * median,
        "best_milliseconds": best and 1e3 * best,
        "rounds": len(row.seconds.get(library, ())),
        "gflops": row.gflops(library),
        "peak_gflops": row.peak and row.peak.gflops,
        "share_of_peak": row.share(library),
        "ratio_to_fastconv": row.ratio(library),
        "best_ratio_to_fastconv": row.ratio(library, min),
        "images_per_second": row.rate(library),
        "peak_bytes": row.memory.get(library),
    }
