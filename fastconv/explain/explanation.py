"""`explain`: images through a small network and back, and what it hands out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastconv import functional
from fastconv.examples.pixels import OTHER_SCALE, pixel_scale
from fastconv.explain.equations import Step, steps
from fastconv.explain.flow import Flow, Parameters, trace
from fastconv.explain.networks import build_binary, build_two_conv, one_of
from fastconv.explain.page import page
from fastconv.explain.text import Style, explanation, plain
from fastconv.explain.trace import BINARY_NAMES, Trace, trace_model
from fastconv.explain.walk import walk
from fastconv.nn import Sequential
from fastconv.nn.checks import as_array, positive_int, quiet, shown
from fastconv.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Explanation", "explain"]

MODELS = {"binary_cnn": "binary_cnn", "two_conv": "two_conv", "two_conv_cnn": "two_conv"}
MOST_CLASSES = 100
SEED = 2  # with which the ReLU of binary_cnn stops some errors


class Explanation(Mapping[str, Any]):
    """Every number of a forward and a backward pass, by the name that its equation gives it.

    ``e["delta1"]`` and ``e.delta1`` are the same array; ``print(e)`` is the walk as text, `plot` a
    picture, and in a notebook the object itself is a page whose cells show where they came from.

    Attributes
    ----------
    arrays : dict
        Arrays and numbers by name, in the order in which they arise. Images and their errors are
        (m, H, W, C), kernels (KH, KW, C, F), what a dense layer gives is (m, units).
    equations : dict of str
        The equation of each array that has one.
    model : str
        What the network is called.
    source : str
        Where the images come from.

    Examples
    --------
    >>> e = explain(np.eye(8), 1)
    >>> e
    <Explanation of binary_cnn: x (1, 8, 8, 1), 23 arrays>
    >>> e.equations["delta1"], e["delta1"].shape
    ('(10) delta1 = dL/da1 * (z1 > 0)', (1, 6, 6, 1))
    """

    def __init__(self, trace: Trace, steps: list[Step], model: str, source: str, book: bool):
        self.arrays = trace.arrays
        self.equations = {step.name: step.equation for step in steps}
        self.model = model
        self.source = source
        self._trace = trace
        self._steps = steps
        self._book = book

    def __getitem__(self, name: str) -> Any:
        if name in self.arrays:
            return self.arrays[name]
        raise KeyError(f"{name}: there are {', '.join(self.arrays)}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "arrays" or name not in self.arrays:
            raise AttributeError(f"Explanation has no attribute {name!r}")
        return self.arrays[name]

    def __dir__(self) -> list[str]:
        return sorted([*super().__dir__(), *self.arrays])

    def __repr__(self) -> str:
        return f"<Explanation of {self.model}: x {self.arrays['x'].shape}, {len(self)} arrays>"

    def __str__(self) -> str:
        return self.text()

    def text(self, style: Style = plain) -> str:
        """The walk as text, in lines of at most 80 characters.

        Parameters
        ----------
        style : callable
            ``style(text, name)`` decorates text whose name is "head", "win", "stop" or "dim".

        Returns
        -------
        str
        """
        if self._book:
            return explanation(self.flow(), self.source, style)
        return walk(self._trace, self.model, self.source, style)

    def flow(self) -> Flow:
        """The numbers of `binary_cnn` as grids without batch and channel.

        Raises
        ------
        ValueError
            If it is another network, another pool or several images.
        """
        if not self._book:
            raise ValueError("flow: only one image through binary_cnn with its max pool has one")
        a = self.arrays
        parameters = Parameters(a["w1"][:, :, 0, 0], float(a["b1"][0]), a["w3"][:, 0], a["b3"][0])
        return trace(a["x"][0, :, :, 0], int(a["y"][0]), parameters, functional)

    def plot(self) -> Figure:
        """The walk as a picture: the way forward above, the error's way back below.

        Returns
        -------
        matplotlib.figure.Figure
            ``figure.savefig("walk.png")`` writes it; a notebook shows it.

        Raises
        ------
        ImportError
            Without matplotlib; the message says which command installs it.
        """
        try:
            from fastconv.explain.figure import figure_of
            from fastconv.explain.picture import picture
        except ImportError as error:
            command = 'python -m pip install "fastconv[examples]"'
            raise ImportError(f"matplotlib is missing; run: {command}") from error
        if self._book:
            return figure_of(self.flow(), self.source)
        return picture(self._trace, self.model, self.source)

    def html(self) -> str:
        """The walk as a piece of HTML that is whole in itself: no file, no network.

        Point at a cell: what it was made of is framed in green, what it is part of in orange,
        forwards and backwards; below the title its sum is written out.

        Returns
        -------
        str
        """
        return page(self._trace, self._steps, self.model, self.source)

    _repr_html_ = html

    def as_dict(self) -> dict[str, Any]:
        """Everything as lists and numbers, for JSON.

        Returns
        -------
        dict
            Of `binary_cnn`, grids without batch and channel, as `flow` has them.
        """
        if self._book:
            return self.flow().as_dict()
        lists = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in self.arrays.items()}
        return {"model": self.model, **lists, "equations": self.equations}


@quiet
def explain(
    x: ArrayLike,
    y: ArrayLike | int | None = None,
    *,
    model: Literal["binary_cnn", "two_conv", "two_conv_cnn"] | Sequential = "binary_cnn",
    pool: Literal["max", "mean"] = "max",
    w1: ArrayLike | None = None,
    b1: ArrayLike | None = None,
    w2: ArrayLike | None = None,
    b2: ArrayLike | None = None,
    w3: ArrayLike | None = None,
    b3: ArrayLike | None = None,
    w4: ArrayLike | None = None,
    b4: ArrayLike | None = None,
    w5: ArrayLike | None = None,
    b5: ArrayLike | None = None,
    filters: int | tuple[int, int] | None = None,
    activation: Literal["sigmoid", "relu"] | None = None,
    classes: int | None = None,
    seed: int | None = None,
    source: str = "given as an array",
) -> Explanation:
    """Follow images through a small network and back, number by number.

    "binary_cnn" answers: an error comes back to a max pool; which of the four cells gets it, and
    why do the other three get zero? "two_conv" answers: given the delta of c2 and its weights,
    what is the delta of c1? It is the network c1, f, pool, c2, f, pool, h1, f, h2, f, output, with
    windows of 3x3, no padding, and 4 and 3 hidden units.

    Parameters
    ----------
    x : array (H, W), (m, H, W) or (m, H, W, C)
        Images, 8x8 for "binary_cnn". uint8 is divided by 255, other integers by the largest,
        floats are taken as they are: beyond 10 the networks above saturate, which a warning says.
    y : int or array (m,) of integers, optional
        Labels. None means what the network itself finds most probable.
    model : str or Sequential
        A `Sequential` must give (m, 1) numbers, for a sigmoid, or (m, classes), for a softmax. It
        is explained as it predicts, and is not changed.
    pool : {"max", "mean"}
        The subsampling of the networks above.
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 : array, optional
        Parameters in place of the drawn ones: kernels (KH, KW, C, F), or (KH, KW) for one filter,
        and (inputs, outputs) for dense layers. Kernels of "two_conv" may have any size, and say
        how many filters there are.
    filters : int or (int, int), optional
        Of c1 and c2 in "two_conv" (2).
    activation : {"sigmoid", "relu"}, optional
        f of "two_conv" (sigmoid).
    classes : int, optional
        Outputs of "two_conv"; by default 2, or as many as the largest label needs.
    seed : int, optional
        Of the drawn parameters (2).
    source : str
        Where the images come from, for the headline.

    Returns
    -------
    Explanation

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> e = explain(np.eye(14), 1, model="two_conv", pool="mean")
    >>> e["delta2"].shape, e["w2"].shape, e["delta1"].shape
    ((1, 4, 4, 2), (3, 3, 2, 2), (1, 12, 12, 2))
    >>> bool(np.allclose(e["ds1"], e["ds1_col2im"], atol=1e-12))
    True
    """
    given = {"w1": w1, "b1": b1, "w2": w2, "b2": b2, "w3": w3, "b3": b3}
    given |= {"w4": w4, "b4": b4, "w5": w5, "b5": b5}
    images, labels = _images(x), None
    if y is not None:
        labels = _labels(y, len(images))
    if isinstance(model, Sequential):
        options: dict[str, Any] = {"filters": filters, "activation": activation}
        options |= {"classes": classes, "seed": seed}
        options |= given | {"pool": None if pool == "max" else pool}
        _refuse(options, "a network of your own is explained as it is")
        name = model.name or "a network of your own"
        dtype = next((p.dtype for p in model.parameters()), np.dtype(np.float64))
        found = trace_model(model, images.astype(dtype), labels)
        return Explanation(found, steps(found), name, source, False)
    if not isinstance(model, str):
        raise TypeError(f"model: a name or a Sequential is needed, got {shown(model)}")
    name = MODELS[one_of("model", model, tuple(MODELS))]
    largest = float(np.abs(images).max())
    if largest > OTHER_SCALE:
        warnings.warn(
            f"x: {source}: floats up to {largest:g}, taken as they are: in 0 .. 1, as "
            f"x / {largest:g}, the sigmoid does not saturate",
            UserWarning,
            stacklevel=3,  # through `quiet`
        )
    draw = positive_int("seed", SEED if seed is None else seed, 0)
    if name == "binary_cnn":
        options = {"filters": filters, "activation": activation, "classes": classes}
        _refuse(options, "binary_cnn has one filter, ReLU and one output")
        network = build_binary(images.shape[1:], pool, given, draw)
        _binary_labels(labels)
        found = trace_model(network, images, labels, BINARY_NAMES)
        book = (
            pool == "max" and len(images) == 1
        )  # what the text of `fastconv.explain.text` is about
        return Explanation(found, steps(found, book=book), name, source, book)
    network = build_two_conv(
        images.shape[1:],
        pool,
        given,
        draw,
        filters=2 if filters is None else filters,
        activation="sigmoid" if activation is None else activation,
        classes=_classes(classes, labels, given),
    )
    found = trace_model(network, images, labels)
    return Explanation(found, steps(found), name, source, False)


def _images(x: Any) -> np.ndarray:
    """Images as float64 (m, H, W, C), integers scaled as the data loader scales them."""
    array = as_array("x", x)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"x: numbers (images) are needed, got {array.dtype}")
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise ValueError(f"x: expected (H, W), (m, H, W) or (m, H, W, C), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("x: holds NaN or infinity")
    shape = {2: (1, *array.shape, 1), 3: (*array.shape, 1), 4: array.shape}[array.ndim]
    scaled: np.ndarray = array.astype(np.float64).reshape(shape) / pixel_scale(array, [array])
    return scaled


def _labels(y: Any, m: int) -> np.ndarray:
    array = as_array("y", y)
    if array.dtype.kind not in "iub":
        raise TypeError(f"y: integer labels are needed, got {array.dtype}")
    if array.shape not in ((m,), (m, 1)) and not (m == 1 and array.ndim == 0):
        raise ValueError(f"y: expected {m} label{'s' * (m > 1)}, got {array.shape}")
    return array.reshape(m).astype(np.int64)


def _binary_labels(labels: np.ndarray | None) -> None:
    if labels is not None and not np.isin(labels, (0, 1)).all():
        raise ValueError(f"y: binary_cnn says yes or no: 0 or 1, got {labels.tolist()}")


def _classes(classes: int | None, labels: np.ndarray | None, given: dict[str, Any]) -> int:
    """How many outputs: as asked, as the last weights have them, or as the labels need them."""
    if classes is not None:
        return positive_int("classes", classes, 2)
    if given["w5"] is not None:
        return int(as_array("w5", given["w5"]).shape[-1])
    most = 1 if labels is None else int(labels.max())
    if most >= MOST_CLASSES:
        raise ValueError(f"y: labels are 0 .. {MOST_CLASSES - 1}, got {most}")
    return max(2, most + 1)


def _refuse(options: dict[str, Any], why: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name}: {why}; got {shown(value)}")
