"""Callbacks that write a run down: a table for spreadsheets, and events for TensorBoard."""

from __future__ import annotations

import csv
import io
import os
from typing import Any

from fastconv._extras import host
from fastconv.nn.files import file_path, replacing
from fastconv.nn.history import FitState

__all__ = ["CSVLog", "TensorBoard"]


class CSVLog:
    """Callback: the history as a file of comma-separated values, written after every epoch.

    The file has a line for each epoch with the columns of `History`; what does not exist is empty.
    It is always whole, and after a resume it has all epochs of the run.

    Parameters
    ----------
    path : path
        Replaced if it exists, but for a run that is resumed.

    Raises
    ------
    TypeError
        If `path` is none.
    OSError, ValueError
        From `fit`, before its first step, if it cannot be written.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from fastconv import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Dense(4, 2, init="zeros"))
    >>> x, y = np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1), np.array([0, 0, 1, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = CSVLog(os.path.join(folder, "run.csv"))
    ...     _ = nn.fit(model, nn.SoftmaxCrossEntropy(), nn.SGD(model.parameters()), x, y,
    ...                epochs=2, callbacks=[log])
    ...     with open(log.path) as file:
    ...         [line.partition(",")[0] for line in file]
    ['epoch', '1', '2']
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(file_path("path", path))

    def on_fit_begin(self, state: FitState) -> None:
        """Write what there is, at the least the names of the columns."""
        self._write(state)

    def on_epoch_end(self, state: FitState) -> None:
        """Write all epochs so far."""
        self._write(state)

    def _write(self, state: FitState) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in state.history:
            writer.writerow(["" if row[key] is None else row[key] for key in COLUMNS])
        with replacing(self.path) as file:
            file.write(text.getvalue().encode())


COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds",
           "images_per_second")  # fmt: skip


class TensorBoard:
    """Callback: the history as events that TensorBoard draws: ``tensorboard --logdir folder``.

    Training and validation are drawn in one chart each for loss and accuracy. A resumed run goes
    on in the same folder.

    Parameters
    ----------
    folder : path
        Made if it does not exist; a run adds a file of its own.

    Raises
    ------
    ImportError
        If tensorboardX is not installed: ``pip install "fastconv[tensorboard]"``.
    TypeError
        If `folder` is no path.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from fastconv import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Dense(4, 2, init="zeros"))
    >>> x, y = np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1), np.array([0, 0, 1, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = nn.fit(model, nn.SoftmaxCrossEntropy(), nn.SGD(model.parameters()), x, y,
    ...                epochs=2, callbacks=[TensorBoard(folder)])
    ...     sorted(os.listdir(folder))
    ['training', 'validation']
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = str(file_path("folder", folder))
        self._writers = host("tensorboardX", "tensorboard").SummaryWriter
        self._open: dict[str, Any] = {}

    def on_fit_begin(self, state: FitState) -> None:
        """Open the files."""
        self._close()
        for part in ("training", "validation"):
            folder = os.path.join(self.folder, part)
            # what an interrupted run wrote of later epochs is not shown
            self._open[part] = self._writers(folder, purge_step=len(state.history) + 1)

    def on_epoch_end(self, state: FitState) -> None:
        """Write the epoch's figures."""
        row = state.metrics
        parts = {
            "training": {key: row[key] for key in COLUMNS[1:3] + COLUMNS[5:]},
            "validation": {"loss": row["val_loss"], "accuracy": row["val_accuracy"]},
        }
        for part, figures in parts.items():
            for key, value in figures.items():
                if value is not None:
                    self._open[part].add_scalar(key, value, state.epoch)
            self._open[part].flush()

    def on_fit_end(self, state: FitState) -> None:
        """Close the files."""
        self._close()

    def _close(self) -> None:
        for writer in self._open.values():
            writer.close()
        self._open = {}
