"""What ``fastconv train`` trains: data, model, loss, optimizer, and the files it writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastconv.cli.output import INSTALL_EXAMPLES, CommandError, one_line
from fastconv.examples.pixels import OTHER_SCALE
from fastconv.nn.files import may_write

__all__ = ["DEFAULT_OUT", "Files", "Setup", "make_folder", "prepare", "shown"]

DEFAULT_OUT = Path("fastconv-run")
VALIDATION_SHARE = 0.1  # of the training images; the test images are only looked at at the end


@dataclass(frozen=True)
class Files:
    """Where a run writes.

    Attributes
    ----------
    checkpoint : Path
        State of the run after each epoch, from which ``--resume`` continues.
    model : Path
        The trained model, for `fastconv.nn.Sequential.load`.

    Examples
    --------
    >>> Files.under(Path("digits.npz")).checkpoint.name
    'digits.checkpoint.npz'
    """

    checkpoint: Path
    model: Path

    @classmethod
    def under(cls, out: Path) -> Files:
        """Files of ``--out``: a folder, or the model's file if it ends in .npz."""
        if out.suffix == ".npz":
            return cls(out.with_name(f"{out.stem}.checkpoint.npz"), out)
        return cls(out / "checkpoint.npz", out / "model.npz")

    @property
    def folder(self) -> Path:
        """The folder of both."""
        return self.model.parent

    def make_folder(self) -> None:
        """Create the folder, or say why not."""
        make_folder("--out", self.folder)


def make_folder(option: str, folder: Path) -> None:
    """Create the folder of an option, or say why not."""
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{option}: {folder} is a file; a folder is needed")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{option}: {one_line(error)}") from error
    if not may_write(folder):
        raise CommandError(f"{option}: {folder}: Permission denied")


@dataclass
class Setup:
    """Everything `fastconv.nn.fit` needs, and the test data."""

    name: str
    source: str
    recipe: Any
    model: Any
    loss: Any
    optimizer: Any
    x: Any
    y: Any
    validation: tuple[Any, Any] | None
    x_test: Any
    y_test: Any
    classes: int
    class_names: tuple[str, ...] | None = None

    def class_name(self, label: int) -> str:
        """What a class is called: its name in the data, else its number."""
        names = self.class_names or ()
        return names[label] if label < len(names) else str(label)

    def about(self) -> Any:
        """What the model's file says of the images, for ``fastconv predict``."""
        from fastconv.nn.storage import About

        names = tuple(self.class_name(label) for label in range(self.classes))
        return About(names, tuple(map(int, self.x.shape[1:])), self.pixel_scale())

    def pixel_scale(self) -> float:
        """What bytes are multiplied by to be like the training images."""
        import numpy as np

        whole = isinstance(self.x, np.ndarray) and self.x.dtype.kind == "f"
        return 1.0 if whole and float(np.abs(self.x).max()) > OTHER_SCALE else 1 / 255

    def notes(self) -> list[str]:
        """One line about each property of the data that may not be meant."""
        import numpy as np

        y = self.y if self.validation is None else np.concatenate([self.y, self.validation[1]])
        found = []
        unused = np.setdiff1d(np.arange(self.classes), y)
        if len(unused):
            few = ", ".join(self.class_name(label) for label in unused[:8])
            more = f", ... ({len(unused)} of {self.classes} classes)" if len(unused) > 8 else ""
            found.append(
                f"no training image has the label {few}{more}: labels count from 0, and the "
                f"network has {self.classes} classes"
            )
        largest = float(np.abs(self.x).max())
        if largest > OTHER_SCALE:
            found.append(
                f"pixels are floats up to {largest:g}, taken as they are: integers, or floats in "
                "0 .. 1, are learnt faster"
            )
        return found

    def summary(self) -> str:
        """One line about the model and the data."""
        parameters = sum(p.size for p in self.model.parameters())
        held = f"{len(self.validation[0])} validation, " if self.validation else ""
        return (
            f"{self.name}: {parameters:,} parameters; {self.source}: {len(self.x)} training, "
            f"{held}{len(self.x_test)} test images"
        )


def shown(value: float) -> str:
    """A setting as people write it: whole numbers whole.

    >>> shown(1234567), shown(0.003)
    ('1234567', '0.003')
    """
    return str(value) if isinstance(value, int) else f"{value:g}"


def prepare(
    name: str,
    data: str | None,
    lr: float,
    seed: int,
    *,
    labels: Path | None = None,
    size: tuple[int, int] | None = None,
) -> Setup:
    """Load the data and build the model.

    Parameters
    ----------
    name : str
        One of `fastconv.examples.RECIPES`.
    data : str or None
        What `fastconv.examples.load_data` takes; None for scikit-learn's digits.
    lr : float
        Learning rate.
    seed : int
        Seed of the model's first weights.
    labels : Path, optional
        Text file with the names of the classes, one a line.
    size : (H, W), optional
        What the images of a folder are resized to.

    Raises
    ------
    CommandError
        If the data cannot be read or do not fit the model.
    """
    from fastconv import examples, nn
    from fastconv.examples import stratified_split

    found = _load(data, size)
    if labels is not None:
        found = _named(found, labels)
    if name == "binary_cnn":
        found = _two_classes(found, data)
    loss: nn.Loss = nn.SoftmaxCrossEntropy()
    try:
        if name == "binary_cnn":
            model, loss = examples.binary_cnn(seed=seed), nn.BinaryCrossEntropy()
        else:
            build = getattr(examples, name)
            model = build(found.x_train.shape[1:], found.classes, seed=seed)
    except ValueError as error:
        hint = ""
        if found.x_train.shape[1] in (1, 3, 4):
            hint = "; if the channels come first, save np.moveaxis(x, 1, -1)"
        raise CommandError(
            f"--model {name}: the images do not fit: {one_line(error)}{hint}"
        ) from error
    kept, held = stratified_split(found.y_train, VALIDATION_SHARE)
    return Setup(
        name=name,
        source=data or "scikit-learn's digits",
        recipe=examples.RECIPES[name],
        model=model,
        loss=loss,
        optimizer=examples.RECIPES[name].optimizer(model, lr),
        x=found.x_train[kept],
        y=found.y_train[kept],
        validation=(found.x_train[held], found.y_train[held]) if len(held) else None,
        x_test=found.x_test,
        y_test=found.y_test,
        classes=found.classes,
        class_names=found.class_names,
    )


def _named(found: Any, labels: Path) -> Any:
    """The data with the names of their classes from a file."""
    from fastconv.examples.names import read_names

    try:
        names = read_names(labels)
    except (OSError, ValueError) as error:
        raise CommandError(f"--labels: {one_line(error)}") from error
    if len(names) < found.classes:
        raise CommandError(
            f"--labels {labels}: {len(names)} names for the {found.classes} classes of the data"
        )
    return found._replace(classes=len(names), class_names=names)


def _load(data: str | None, size: tuple[int, int] | None) -> Any:
    from fastconv.examples import load_data, load_digits

    if data is None and size is not None:
        raise CommandError("--image-size: it is for the images of a folder: --data FOLDER")
    if data is not None:
        try:
            return load_data(data, size=size)
        except ImportError as error:  # a folder of PNG files, and no Pillow
            raise CommandError(f"--data: {one_line(error)}", status=1) from error
        except (OSError, ValueError, TypeError) as error:
            text = one_line(error).replace("size=(H, W)", "--image-size HxW")
            raise CommandError(f"--data: {text}") from error
    try:
        return load_digits()
    except ImportError as error:
        raise CommandError(
            f"the digits come with scikit-learn, which is missing; run: {INSTALL_EXAMPLES}",
            status=1,
        ) from error


def _two_classes(found: Any, data: str | None) -> Any:
    """The digits 0 and 1 of the digits; a file must hold two classes of 8x8 grey images."""
    if data is None:
        train, test = found.y_train < 2, found.y_test < 2
        return found._replace(
            x_train=found.x_train[train],
            y_train=found.y_train[train],
            x_test=found.x_test[test],
            y_test=found.y_test[test],
            classes=2,
        )
    if found.x_train.shape[1:] != (8, 8, 1):
        shape = "x".join(map(str, found.x_train.shape[1:]))
        raise CommandError(
            f"--data {data}: binary_cnn takes images of 8x8x1 (H x W x C), found {shape}"
        )
    if found.classes > 2:
        raise CommandError(
            f"--data {data}: binary_cnn takes the labels 0 and 1, found {found.classes} classes"
        )
    return found._replace(classes=2)  # also where all labels are 0
