"""Inference as one program: every layer in evaluation mode, nothing kept for a backward pass."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastconv import threads
from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, check_array, positive_int, quiet
from fastconv.nn.copying import runner
from fastconv.nn.feed import Preparation, images_of
from fastconv.nn.lowering import check_images, lowered
from fastconv.nn.programs import dtype_of, images_shape, kept, new_program, programs, table
from fastconv.nn.sources import Data
from fastconv.plans.algorithm import algorithm as algorithm_of
from fastconv.plans.algorithm import chosen
from fastconv.program.graph import Graph, Value
from fastconv.typing import Algorithm, DTypeLike

if TYPE_CHECKING:
    from fastconv.program.machine import Program

__all__ = ["Forward", "InferencePlan", "forward_of", "plan_inference", "predict"]

# Bytes of a program that a model keeps for `predict`; larger ones are made anew each time.
KEPT_BYTES = 64 * 2**20


class _Copies(Graph):
    """A graph that reads copies of the model's arrays, as they were when it was made."""

    def __init__(self) -> None:
        super().__init__(inference=True)
        self.copies: dict[int, tuple[Array, Array]] = {}
        self.twins: dict[int, tuple[Layer, Layer]] = {}

    def array(self, array: Array) -> Value:
        """The value of a copy."""
        if id(array) not in self.copies:
            self.copies[id(array)] = (array, array.copy())
        return super().array(self.copies[id(array)][1])

    def layer(self, layer: Layer) -> Layer:
        """A copy of a layer that is called back."""
        if id(layer) not in self.twins:
            modules = {id(part._ops): part._ops for _, part in layer.walk()}  # shared, not copied
            self.twins[id(layer)] = (layer, copy.deepcopy(layer, modules))
        return self.twins[id(layer)][1]

    def refresh(self) -> None:
        """Take the arrays as they are now."""
        pairs = list(self.copies.values())
        for layer, twin in self.twins.values():
            pairs += zip(layer.named_buffers().values(), twin.named_buffers().values(), strict=True)
            pairs += [
                (now.value, then.value)
                for now, then in zip(layer.parameters(), twin.parameters(), strict=True)
            ]
        for array, copied in pairs:
            np.copyto(copied, array)


class _Ready(NamedTuple):
    """A program that nobody runs now: of which version, its images and its results."""

    program: Program
    version: int
    x: Array
    y: Array


class Forward:
    """The forward pass of a model on batches of one shape; several threads may run it at once.

    Each takes a program of its own, which reads the arrays of the graph and keeps what it packs of
    them until `version` is another.
    """

    def __init__(self, model: Layer, graph: Graph, x_shape: tuple[int, ...], dtype: Any) -> None:
        self.graph = graph
        self.x = graph.value(x_shape, dtype, kept=True)
        self.y, _ = lowered(model, graph, self.x)
        self.y.root.kept = True
        # only the interpreter's own arithmetic warns
        self._quiet = any(operation.make is None for operation in graph.operations)
        self._versions = itertools.count(1)
        self.version = 0
        self.free = [self._ready(self.version)]

    def _ready(self, version: int) -> _Ready:
        program = new_program(self.graph)
        return _Ready(program, version, program.array(self.x), program.array(self.y))

    @property
    def nbytes(self) -> int:
        """Bytes of one program."""
        return self.free[0].program.nbytes

    def renew(self) -> None:
        """Have all runs that begin from now on pack kernels anew; no number comes twice."""
        self.version = next(self._versions)

    def run(self, x: Array, out: Array) -> None:
        """Compute ``out`` for as many images as there are, or fewer."""
        now = self.version
        try:
            ready = self.free.pop()
        except IndexError:  # all are in use
            ready = self._ready(now)
        program, version, images, results = ready
        try:
            if version != now:
                program.pack_anew()
            if len(x) < len(images):
                images, results = images[: len(x)], results[: len(x)]
            np.copyto(images, x)
            if self._quiet:
                _run_quietly(program)
            else:
                program.run()
            np.copyto(out, results)
        finally:
            self.free.append(ready if version == now else ready._replace(version=now))


@quiet
def _run_quietly(program: Program) -> None:
    program.run()


class InferencePlan:
    """Outputs of a model for batches of one shape, ready to be computed: see `plan_inference`.

    It keeps the weights of its making, and may be used from several threads at once. Printed, it
    shows its operations.

    Attributes
    ----------
    x_shape, y_shape : tuple of int
        Of the largest batch; those of fewer images work, too.
    dtype : numpy.dtype
    algorithm : {"exact", "fast"}
        The one that it was made with, of the layers that have none of their own.
    """

    def __init__(self, model: Layer, x_shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.x_shape, self.dtype, self._model = x_shape, np.dtype(dtype), model
        self.algorithm = chosen(None)
        self._make()

    def _make(self) -> None:
        self._graph = _Copies()
        with algorithm_of(self.algorithm):
            self._forward = Forward(self._model, self._graph, self.x_shape, self.dtype)
        self.y_shape = self._forward.y.shape

    def __call__(self, x: Array, out: Array | None = None) -> Array:
        """Outputs for `x`.

        Parameters
        ----------
        x : ndarray (m, ...)
            At most as many images as were planned.
        out : ndarray, optional
            Takes the result.

        Raises
        ------
        ValueError, TypeError
            If `x` or `out` does not fit.
        """
        shape = self.y_shape
        if type(x) is not np.ndarray or x.dtype is not self.dtype or x.shape != self.x_shape:
            shape = (self._checked(x), *shape[1:])
        dtype = self._forward.y.dtype
        if out is None:
            out = np.empty(shape, dtype)
        elif not isinstance(out, np.ndarray):
            raise TypeError(f"out: a NumPy array is needed, got {type(out).__name__}")
        elif out.shape != shape or out.dtype != dtype or not out.flags.writeable:
            raise ValueError(
                f"out: a writeable array {shape} of {dtype} is needed, got {out.shape} of "
                f"{out.dtype}"
            )
        self._forward.run(x, out)
        return out

    def _checked(self, x: Array) -> int:
        """Images of a batch that fits."""
        check_array("x", x)
        if x.dtype != self.dtype:
            raise TypeError(f"x: expected dtype {self.dtype}, got {x.dtype}")
        m = len(x) if x.ndim else 0
        if x.ndim == 0 or x.shape[1:] != self.x_shape[1:] or m > self.x_shape[0]:
            raise ValueError(
                f"x: expected {self.x_shape}, as planned, or fewer images, got {x.shape}"
            )
        return m

    def refresh(self) -> None:
        """Take the model's weights as they are now.

        Not while another thread is in a call.
        """
        if self._graph.changed():  # other layers, or other settings of them
            self._make()
            return
        self._graph.refresh()
        self._forward.renew()

    @property
    def workspace_nbytes(self) -> int:
        """Bytes that a thread's call needs besides the weights."""
        return new_program(self._graph).nbytes

    def __repr__(self) -> str:
        return f"InferencePlan(x={self.x_shape}, y={self.y_shape}, {self.dtype})"

    def __str__(self) -> str:
        rows = [(o.label, f"{o.flops:,}", f"{o.nbytes:,}") for o in self._graph.operations]
        flops = sum(o.flops for o in self._graph.operations)
        return table([
            ("operation", "flops", "bytes"),
            *rows,
            ("all", f"{flops:,}", f"{sum(o.nbytes for o in self._graph.operations):,}"),
        ])  # fmt: skip


@quiet
def plan_inference(
    model: Layer, x_shape: Sequence[int], *, algorithm: Algorithm | None = None
) -> InferencePlan:
    """Prepare the outputs of a model for batches of one shape: `Sequential.plan_inference`."""
    shape = images_shape(x_shape)
    dtype = dtype_of(model)
    with algorithm_of(chosen(algorithm)):
        check_images(model, shape, dtype, Graph(inference=True))
        return InferencePlan(model, shape, dtype)


def forward_of(model: Layer, x: Array) -> Forward | None:
    """The kept forward pass for batches like `x`, with today's weights.

    None where the plain passes must do it: on naive loops, and for images that do not fit.
    """
    if x.dtype != dtype_of(model) or not len(x):
        return None
    if any(layer._ops is not None for _, layer in model.walk()):
        return None
    own = programs(model)
    key = (x.shape, threads.get_num_threads(), chosen(None))
    found: Forward | None = own.forwards.get(key)
    if found is None or found.graph.changed():
        try:
            found = Forward(model, Graph(inference=True), x.shape, x.dtype)
        except (ValueError, TypeError):  # raised again by the plain pass, as a user knows it
            return None
        if found.nbytes <= KEPT_BYTES:
            own.forwards = kept(own.forwards, key, found)
    found.renew()  # the weights may be others
    return found


@quiet
def predict(
    model: Layer,
    x: Data,
    batch_size: int = 256,
    *,
    scale: float | None = None,
    transform: Callable[[Array], Array] | None = None,
) -> Array:
    """Outputs of any layer for `x`; see `Sequential.predict`.

    Examples
    --------
    >>> from fastconv.nn import Flatten
    >>> predict(Flatten(), np.zeros((3, 2, 2, 1), np.float32)).shape
    (3, 4)
    """
    batch_size = positive_int("batch_size", batch_size)
    batches = images_of(x, batch_size, Preparation(scale, transform, dtype_of(model)))
    found: list[Array] = []
    shape: tuple[int, ...] = ()
    forward, run = None, runner(model)
    for batch in batches:
        if batch.shape != shape:
            shape, forward = batch.shape, forward_of(model, batch)
        if forward is None:
            found.append(run(batch))
        else:
            y: Array = np.empty((len(batch), *forward.y.shape[1:]), forward.y.dtype)
            forward.run(batch, y)
            found.append(y)
    if not found:
        raise ValueError("x: it has no batch")
    return found[0] if len(found) == 1 else np.concatenate(found)
