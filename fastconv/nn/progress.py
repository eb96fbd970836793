"""Progress of a training run on standard error: a bar on a terminal, else a line per epoch."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

import numpy as np

from fastconv.nn.checks import shown

__all__ = ["Progress", "epoch_line", "new_bar", "progress_of"]

REDRAW_SECONDS = 0.1  # ten redraws a second look smooth and cost under 1 % of the training


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One line about a finished epoch.

    Parameters
    ----------
    row : dict
        A row of `fastconv.nn.History.epochs`.
    epochs : int
        How many epochs the run has.

    Examples
    --------
    >>> epoch_line({"epoch": 3, "loss": 0.25, "accuracy": 0.9, "images_per_second": 81234.5}, 20)
    'epoch  3/20  loss 0.2500  accuracy 0.9000  81,234 images/s'
    """
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}", *_metrics(row)]
    if row.get("images_per_second"):
        parts.append(f"{int(row['images_per_second']):,} images/s")
    return "  ".join(parts)


def _metrics(row: dict[str, Any]) -> list[str]:
    names = {
        "loss": "loss",
        "accuracy": "accuracy",
        "val_loss": "val loss",
        "val_accuracy": "val accuracy",
    }
    return [f"{names[k]} {row[k]:.4f}" for k in names if row.get(k) is not None]


def progress_of(verbose: Any) -> Progress | None:
    """What `fit` shows: nothing for None, False and 0; for True and 1 a bar; for 2 lines only.

    Raises
    ------
    TypeError, ValueError
        If `verbose` is none of these.
    """
    if verbose is None or isinstance(verbose, bool | np.bool_):
        return Progress() if verbose else None
    if not hasattr(verbose, "__index__"):
        raise TypeError(f"verbose: True, False, 0, 1 or 2 is needed, got {shown(verbose)}")
    if verbose not in (0, 1, 2):
        raise ValueError(f"verbose: must be 0, 1 or 2, got {verbose!r}")
    return Progress(lines=verbose == 2) if verbose else None


class Progress:
    """Callback of `fastconv.nn.fit`. Call `close` when the run ends, however it ends.

    Parameters
    ----------
    lines : bool
        Whether to print a line an epoch on a terminal, too.
    """

    def __init__(self, lines: bool = False) -> None:
        self.bar = None if lines else new_bar()
        self.started = self.drawn = 0.0
        self.finished_epochs = 0

    def on_fit_begin(self, state: Any) -> None:
        """Take over the epochs of a resumed run."""
        self.finished_epochs = len(state.history)

    def on_epoch_begin(self, state: Any) -> None:
        """Start the epoch's bar."""
        self.started = time.perf_counter()
        if self.bar:
            self.bar.start(f"epoch {state.epoch}/{state.epochs}", state.images)

    def on_batch_end(self, state: Any) -> None:
        """Move the bar."""
        now = time.perf_counter()
        if self.bar and (now - self.drawn > REDRAW_SECONDS or state.images_seen == state.images):
            self.drawn = now
            speed = state.images_seen / max(now - self.started, 1e-9)
            text = "  ".join([*_metrics(state.metrics), f"{int(speed):,} images/s"])
            self.bar.move(state.images_seen, text)

    def on_epoch_end(self, state: Any) -> None:
        """Print the epoch's line."""
        self.finished_epochs = len(state.history)
        line = epoch_line(state.metrics, state.epochs)
        if self.bar:
            self.bar.line(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar:
            self.bar.close()


def new_bar() -> Any:
    """A bar with ``start``, ``move``, ``line`` and ``close``; None where there is no terminal."""
    if not sys.stderr.isatty():
        return None
    try:
        return _RichBar()
    except ImportError:
        return _PlainBar()


class _RichBar:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        plain = {"markup": False}
        self.progress = RichProgress(
            TextColumn("{task.description}", **plain),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}", **plain),
            console=Console(stderr=True, highlight=False),
            transient=True,
            auto_refresh=False,  # no second thread beside the training
        )
        self.task: Any = None

    def start(self, title: str, total: int) -> None:
        if self.task is None:
            self.progress.start()
            self.task = self.progress.add_task(
                title, total=total or None, text="compiling the kernels if this is their first use"
            )
        else:
            self.progress.reset(self.task, total=total or None, description=title)
        self.progress.refresh()

    def move(self, done: int, text: str) -> None:
        self.progress.update(self.task, completed=done, text=text)
        self.progress.refresh()

    def line(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self.progress.stop()


class _PlainBar:
    """A bar of ASCII characters, redrawn over itself."""

    def __init__(self) -> None:
        self.title, self.total = "", 1

    def start(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self.move(0, "")

    def move(self, done: int, text: str) -> None:
        filled = min(24 * done // max(self.total, 1), 24)
        bar = "#" * filled + "-" * (24 - filled)
        width = shutil.get_terminal_size().columns - 1
        total = self.total or "?"  # of batches of the caller's, in the first epoch
        line = f"{self.title} [{bar}] {done}/{total}  {text}"[:width]
        sys.stderr.write(f"\r{line.ljust(width)}")
        sys.stderr.flush()

    def line(self, text: str) -> None:
        self.close()
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write("\r" + " " * width + "\r")
        sys.stderr.flush()
