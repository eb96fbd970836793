"""A network as a list of operations on values: what lowering writes, and placing and binding read.

A value is an array that does not exist yet, of known shape and dtype. An operation reads some and
writes others, and knows how to become calls of compiled entries once they have addresses.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import isroutine
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import threads

if TYPE_CHECKING:
    from fastconv.engine.call import Call

__all__ = ["Graph", "Operation", "Timing", "Value"]


class Value:
    """An array of a program.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    array : ndarray, or None
        An array of the caller's, such as a parameter; None for one that the program places.
    base : Value, or None
        The value whose memory this one shows in another shape.
    kept : bool
        Whether it must live through the whole program: what the caller writes or reads.
    """

    __slots__ = ("array", "base", "dtype", "kept", "shape")

    def __init__(
        self,
        shape: Sequence[int],
        dtype: Any,
        array: np.ndarray | None = None,
        base: Value | None = None,
        kept: bool = False,
    ) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.array, self.base, self.kept = array, base, kept

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def root(self) -> Value:
        """The value whose memory it is."""
        value = self
        while value.base is not None:
            value = value.base
        return value

    def __repr__(self) -> str:
        return f"Value({self.shape}, {self.dtype})"


@dataclass(frozen=True, eq=False)
class Operation:
    """What is done with some values.

    Attributes
    ----------
    label : str
        For people: "Conv 0 forward".
    make : callable, or None
        ``make(scratch, *arrays)``: its calls, for the arrays of `reads` and `writes` in this order
        and the address of scratch that no other operation uses at the same time.
    python : callable, or None
        Instead of `make`: ``python(*arrays)`` does the work itself, in the interpreter.
    reads, writes : tuple of Value
    scratch : int
        Bytes of scratch that its calls need.
    over : tuple of Value, or None
        ``(written, read)``: the first may lie where the second does, if that is not read again.
    flops : int
        Multiplications and additions.
    checked : bool
        Whether the first element of its last value, a double, must be finite for the program to go
        on.
    """

    label: str
    make: Callable[..., Sequence[Call]] | None
    python: Callable[..., None] | None
    reads: tuple[Value, ...]
    writes: tuple[Value, ...]
    scratch: int = 0
    over: tuple[Value, Value] | None = None
    flops: int = 0
    checked: bool = False

    @property
    def values(self) -> tuple[Value, ...]:
        """All that it touches, in the order in which `make` gets their arrays."""
        return self.reads + self.writes

    @property
    def nbytes(self) -> int:
        """Bytes that it reads and writes, at least."""
        return sum(value.nbytes for value in self.values)


@dataclass(frozen=True)
class Timing:
    """A row of a program's profile: an operation, and the seconds that a run of it took."""

    label: str
    seconds: float
    flops: int
    nbytes: int


@dataclass(eq=False)
class Graph:
    """The operations of a program, in order.

    Examples
    --------
    >>> graph = Graph()
    >>> x = graph.value((2, 3), np.float32, kept=True)
    >>> y = graph.value((2, 3), np.float32, kept=True)
    >>> graph.python("twice", lambda x, y: np.multiply(x, 2, out=y), (x,), (y,))
    >>> [operation.label for operation in graph.operations]
    ['twice']
    """

    operations: list[Operation] = field(default_factory=list)
    # Operations of the interpreter that come before all others, such as drawing random numbers.
    first: list[Operation] = field(default_factory=list)
    # Called with nothing before a run, and after one that went through to its end.
    before: list[Callable[[], None]] = field(default_factory=list)
    after: list[Callable[[], None]] = field(default_factory=list)
    # What the operations were made for, by the object's id and a name: the object, kept alive.
    settings: dict[tuple[int, str], Any] = field(default_factory=dict)
    where: str = ""  # prefix of labels
    places: tuple[tuple[str, Any], ...] = ()  # names and layers that `inside` is in
    # Threads that a run may use: all scratch is made for so many.
    most: int = field(default_factory=threads.get_num_threads)
    inference: bool = False  # whether there is no backward pass, and layers are in evaluation mode
    _known: dict[int, Value] = field(default_factory=dict)
    # Objects' dictionaries, names and values; and what is in those values that can be changed.
    _held: list[dict[str, Any]] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _were: list[Any] = field(default_factory=list)
    _contents: list[tuple[Any, Any]] = field(default_factory=list)
    # Properties: object, name and value.
    _computed: list[tuple[Any, str, Any]] = field(default_factory=list)

    def value(self, shape: Sequence[int], dtype: Any, *, kept: bool = False) -> Value:
        """A new array of the program's own."""
        return Value(shape, dtype, kept=kept)

    def array(self, array: np.ndarray) -> Value:
        """An array of the caller's, which stays where it is; the same value for the same array."""
        found = self._known.get(id(array))
        if found is None:
            found = self._known[id(array)] = Value(array.shape, array.dtype, array)
        return found

    def view(self, value: Value, shape: Sequence[int]) -> Value:
        """The same elements in another shape."""
        return Value(shape, value.dtype, base=value)

    def layer(self, layer: Any) -> Any:
        """The layer that a program of inference calls back."""
        return layer

    def setting(self, owner: Any, name: str) -> Any:
        """An attribute on which the operations depend: if it changes, they must be made anew."""
        value = getattr(owner, name)
        if (id(owner), name) in self.settings:
            return value
        self.settings[id(owner), name] = owner
        attributes = getattr(owner, "__dict__", {})
        if name not in attributes and not isroutine(value):
            self._computed.append((owner, name, value))
            return value
        held = attributes.get(name)  # None for a method, unless the object was given its own
        self._held.append(attributes)
        self._names.append(name)
        self._were.append(held)
        if isinstance(held, dict | list):
            self._contents.append((held, held.copy()))
        return value

    def changed(self) -> bool:
        """Whether a setting is no longer what it was; arrays count by identity."""
        if any(now != before for now, before in self._contents):
            return True
        found = list(map(dict.get, self._held, self._names))
        same = all(map(operator.is_, found, self._were))  # in C: every step asks
        if not same and any(map(_differ, found, self._were)):
            return True
        return any(_differ(getattr(owner, name), was) for owner, name, was in self._computed)

    def call(
        self,
        label: str,
        make: Callable[..., Sequence[Call]],
        reads: Sequence[Value],
        writes: Sequence[Value],
        **options: Any,
    ) -> None:
        """Add an operation that becomes calls of compiled entries (see `Operation`)."""
        self.operations.append(self._operation(label, make, None, reads, writes, **options))

    def python(
        self,
        label: str,
        function: Callable[..., None],
        reads: Sequence[Value],
        writes: Sequence[Value],
        **options: Any,
    ) -> None:
        """Add an operation in the interpreter: a layer that programs do not know."""
        self.operations.append(self._operation(label, None, function, reads, writes, **options))

    def draw(
        self,
        label: str,
        function: Callable[..., None],
        reads: Sequence[Value],
        writes: Sequence[Value],
    ) -> None:
        """Add an operation of the interpreter before all others; it reads the caller's arrays."""
        self.first.append(self._operation(label, None, function, reads, writes))

    def _operation(
        self,
        label: str,
        make: Callable[..., Sequence[Call]] | None,
        python: Callable[..., None] | None,
        reads: Sequence[Value],
        writes: Sequence[Value],
        **options: Any,
    ) -> Operation:
        """What stands here, under the label of this place."""
        return Operation(
            f"{self.where}{label}", make, python, tuple(reads), tuple(writes), **options
        )

    @contextmanager
    def inside(self, where: str, name: str, layer: Any) -> Iterator[None]:
        """Labels of what is added in the ``with`` block begin with `where`: a container's part."""
        outside = self.where, self.places
        self.where, self.places = f"{self.where}{where} ", (*self.places, (name, layer))
        try:
            yield
        finally:
            self.where, self.places = outside


def _differ(a: Any, b: Any) -> bool:
    """Whether two values of a setting are not the same; arrays count by identity."""
    if a is b:
        return False
    return isinstance(a, np.ndarray) or isinstance(b, np.ndarray) or bool(a != b)
