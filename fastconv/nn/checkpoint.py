"""Checkpoints: everything a training run needs to continue bit for bit, in one .npz without pickle.

At every moment a whole checkpoint is on the disk: a new one is written beside the old one and takes
its name when it is complete; the old one stays as ``NAME.previous.npz``.
"""

from __future__ import annotations

import copy
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.nn.base import Layer
from fastconv.nn.checks import Array
from fastconv.nn.files import file_path, followed
from fastconv.nn.npz import NpzReader, write_npz
from fastconv.nn.storage import model_arrays

FORMAT = "fastconv checkpoint 1"


@dataclass
class Checkpoint:
    """State of a training run between two epochs.

    Attributes
    ----------
    epoch : int
        Epochs finished.
    settings : dict
        What must be equal for a resumed run to be the same run.
    history : list of dict
        Rows of `History.epochs`.
    random : dict of str to dict
        State of the run's generator ("fit") and of each layer's, as `bit_generator.state`.
    stopping : dict
        State of early stopping.
    arrays : dict of str to ndarray
        ``parameters/...``, ``buffers/...``, ``optimizer/...``; with early stopping ``best/...``.
    """

    epoch: int
    settings: dict[str, Any]
    history: list[dict[str, Any]]
    random: dict[str, Any]
    stopping: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)


def previous_path(path: str | os.PathLike[str]) -> Path:
    """Where `save_checkpoint` keeps the checkpoint before the last one.

    Parameters
    ----------
    path : path
        Of the last one.

    Returns
    -------
    pathlib.Path

    Examples
    --------
    >>> previous_path("run.npz").name
    'run.previous.npz'
    """
    path = file_path("path", path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the one at `path` before becomes ``NAME.previous.npz``.

    Where the file system has no hard links there is, for a moment, only the previous one;
    `load_checkpoint` then takes that.

    Parameters
    ----------
    path : path
    checkpoint : Checkpoint

    Raises
    ------
    OSError
        If it cannot be written; what was at `path` is still there.
    """
    text = {
        "epoch": checkpoint.epoch,
        "settings": checkpoint.settings,
        "history": checkpoint.history,
        "random": checkpoint.random,
        "stopping": checkpoint.stopping,
    }
    header = {"format": np.array(FORMAT), "state": np.array(json.dumps(text))}
    # the previous one lies beside the file, not beside a link to it
    path = followed(file_path("path", path))
    write_npz(path, header | checkpoint.arrays, previous=previous_path(path))


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint.

    If there is no file at `path` but there is a previous one, the process was killed between two
    renames: the previous one is read.

    Parameters
    ----------
    path : path

    Returns
    -------
    Checkpoint

    Raises
    ------
    FileNotFoundError
        If there is neither.
    ValueError
        If the file is damaged or no checkpoint; the message names the previous one.
    """
    path = followed(file_path("path", path))
    previous = previous_path(path)
    try:
        return _read(path)
    except FileNotFoundError:
        if not previous.exists():
            raise
        return _read(previous)
    except ValueError as error:
        if previous.exists():
            raise ValueError(f"{error}. The checkpoint before it is in {previous}") from error
        raise


def _read(path: Path) -> Checkpoint:
    with NpzReader(path, "a training checkpoint of fastconv") as reader:
        found = str(reader.read("format", shape=()))
        if found != FORMAT:
            raise reader.error(f"its format is {found!r} instead of {FORMAT!r}")
        try:
            checkpoint = Checkpoint(**json.loads(str(reader.read("state", shape=()))))
        except (json.JSONDecodeError, RecursionError, TypeError) as error:
            raise reader.error(f"its state cannot be read ({error})") from error
        _check_types(reader, checkpoint)
        names = sorted(reader.names - {"format", "state"})
        checkpoint.arrays = {name: reader.read(name) for name in names}
    return checkpoint


def _check_types(reader: NpzReader, checkpoint: Checkpoint) -> None:
    expected = {"epoch": int, "settings": dict, "history": list, "random": dict, "stopping": dict}
    for name, kind in expected.items():
        if not isinstance(getattr(checkpoint, name), kind):
            raise reader.error(f"its {name} is no {kind.__name__}")


def capture(model: Layer, optimizer: Any, random: dict[str, Any]) -> dict[str, Array]:
    """Arrays of a checkpoint: model and optimizer.  `random` is filled with the layers' states."""
    for path, generator in model.named_generators().items():
        random[f"layer/{path}"] = generator.bit_generator.state
    arrays = dict(model_arrays(model))
    return arrays | {f"optimizer/{name}": array for name, array in optimizer.state().items()}


def restore(
    checkpoint: Checkpoint, model: Layer, optimizer: Any, generator: np.random.Generator
) -> None:
    """Put a checkpoint's state back into a model, an optimizer and the run's generator.

    Raises
    ------
    ValueError, TypeError
        If an array or a random state does not fit; nothing is changed then.
    """
    targets = model_arrays(model)
    for name, array in targets.items():
        found = checkpoint.arrays.get(name)
        if found is None or found.shape != array.shape or found.dtype != array.dtype:
            raise ValueError(f"checkpoint: array {name!r} is missing or does not fit {array.shape}")
    generators = {"fit": generator}
    generators |= {f"layer/{path}": g for path, g in model.named_generators().items()}
    for name, target in generators.items():
        _check_random(name, checkpoint.random.get(name), target)
    prefix = "optimizer/"
    optimizer.load_state(
        {n.removeprefix(prefix): a for n, a in checkpoint.arrays.items() if n.startswith(prefix)}
    )
    for name, target in generators.items():
        target.bit_generator.state = checkpoint.random[name]
    for name, array in targets.items():
        array[...] = checkpoint.arrays[name]


def _check_random(name: str, state: Any, target: np.random.Generator) -> None:
    try:
        copy.deepcopy(target).bit_generator.state = state
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"checkpoint: random state {name!r} cannot be restored") from error
