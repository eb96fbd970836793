"""Where values lie: what is alive at once never overlaps, and little is wasted."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import SHAPE, small

from fastconv import nn
from fastconv.program.graph import Graph, Operation, Value
from fastconv.program.place import ALIGNMENT, place


@st.composite
def programs(draw):
    """Operations that read what was written before, some of them over what they read."""
    sizes = st.integers(0, 300)
    alive = [Value((draw(sizes),), "f4", kept=draw(st.booleans())) for _ in range(2)]
    alive.append(Value((5,), "f4", array=np.zeros(5, "f4")))
    found = []
    for number in range(draw(st.integers(1, 12))):
        reads = tuple(draw(st.lists(st.sampled_from(alive), min_size=1, max_size=3)))
        written = Value((draw(sizes),), "f4", kept=draw(st.integers(0, 5)) == 0)
        over = None
        if draw(st.booleans()):
            over = (written, draw(st.sampled_from(reads)))
            if draw(st.booleans()):
                written.shape = over[1].shape
        found.append(Operation(f"{number}", None, None, reads, (written,), over=over))
        alive.append(written)
        if draw(st.booleans()):
            alive.append(Value((written.shape[0], 1), "f4", base=written))
    return found


def lives(operations):
    """First and last use of each piece of memory, as the definition says it."""
    found = {}
    for i, operation in enumerate(operations):
        for value in operation.values:
            root = value.root
            if root.array is None:
                first, _ = found.get(root, (i, i))
                found[root] = (first, i)
    return {value: (0, len(operations)) if value.kept else life for value, life in found.items()}


def may_be_over(operations, a, b):
    """Whether one of two values is written over the other, which is not read again."""
    for i, operation in enumerate(operations):
        if operation.over is None:
            continue
        written, read = (value.root for value in operation.over)
        if {written, read} == {a, b} and not (read.kept or written.kept):
            return all(read not in [v.root for v in o.values] for o in operations[i + 1 :])
    return False


def span(placement, value):
    return placement.offsets[value], placement.offsets[value] + value.nbytes


def check(operations):
    placement, alive = place(operations), lives(operations)
    assert placement.offsets.keys() == alive.keys()
    values = list(alive)
    for value in values:
        begin, end = span(placement, value)
        assert begin % ALIGNMENT == 0
        assert 0 <= begin <= end <= placement.nbytes
    for k, a in enumerate(values):
        for b in values[:k]:
            together = alive[a][0] <= alive[b][1] and alive[b][0] <= alive[a][1]
            if together and not may_be_over(operations, a, b):
                (a_begin, a_end), (b_begin, b_end) = span(placement, a), span(placement, b)
                assert a_end <= b_begin or b_end <= a_begin, (a, b)
    rounded = sum(-(-max(v.nbytes, 1) // ALIGNMENT) * ALIGNMENT for v in values)
    assert placement.nbytes <= rounded
    for i in range(len(operations)):
        now = [v for v in values if alive[v][0] <= i <= alive[v][1]]
        over = operations[i].over
        saved = over[0].root.nbytes if over and may_be_over(operations, *(
            v.root for v in over)) else 0  # fmt: skip
        assert placement.nbytes >= sum(v.nbytes for v in now) - saved
    return placement


@settings(max_examples=300)
@given(programs())
def test_drawn_lives(operations):
    check(operations)


@pytest.mark.soak
@settings(max_examples=20_000)
@given(programs())
def test_many_drawn_lives(operations):
    check(operations)


def chain(n, over):
    values = [Value((100,), "f4") for _ in range(n + 1)]
    return values, [
        Operation("o", None, None, (a,), (b,), over=(b, a) if over else None)
        for a, b in itertools.pairwise(values)
    ]


def test_a_chain_takes_two_places_and_one_over_itself_takes_one():
    values, operations = chain(9, over=False)
    assert check(operations).nbytes == 2 * 448
    values, operations = chain(9, over=True)
    placement = check(operations)
    assert {placement.offsets[value] for value in values} == {0}
    assert placement.nbytes == 448


def test_nothing_is_written_over_what_is_read_again_or_kept():
    a, b, c = (Value((100,), "f4") for _ in range(3))
    one = Operation("one", None, None, (a,), (b,), over=(b, a))
    two = Operation("two", None, None, (a, b), (c,), over=(c, b))
    found = place([one, two]).offsets
    assert found[a] != found[b]
    assert found[c] == found[b]
    a.kept = True
    found = place([one]).offsets
    assert found[a] != found[b]
    longer = Value((200,), "f4")
    assert len(set(place([Operation("o", None, None, (c,), (longer,), over=(longer, c))])
                   .offsets.values())) == 2  # fmt: skip


def test_a_view_keeps_what_it_shows():
    a, b, c = (Value((100,), "f4") for _ in range(3))
    view = Value((10, 10), "f4", base=a)
    operations = [
        Operation("one", None, None, (a,), (b,)),
        Operation("two", None, None, (b,), (c,)),
        Operation("three", None, None, (view,), ()),
    ]
    assert len(set(place(operations).offsets.values())) == 3
    view.kept = True
    operations = [operations[2], *operations[:2], Operation("four", None, None, (c,), (b,))]
    found = place(operations).offsets
    assert found[a] not in (found[b], found[c])


def test_values_of_the_caller_and_empty_programs_take_no_place():
    assert place([]).nbytes == 0
    own = Value((3,), "f4", array=np.zeros(3, "f4"))
    assert place([Operation("o", None, None, (own,), (own,))]).offsets == {}


def test_real_programs():
    model = small()
    loss, optimizer = nn.SoftmaxCrossEntropy(), nn.Adam(model.parameters())
    step = nn.plan_step(model, loss, optimizer, (8, *SHAPE))
    placement = check(step._batch(8).program.operations)
    everything = {v.root for o in step._batch(8).program.operations for v in o.values}
    total = sum(v.nbytes for v in everything if v.array is None)
    assert placement.nbytes < 0.8 * total


# ---------------------------------------------------------------------------------------- graph


class Thing:
    pass


def test_settings_are_noticed():
    thing, graph = Thing(), Graph()
    thing.number, thing.array, thing.table, thing.items = 1, np.zeros(2), {"a": 1}, [thing]
    for name in ("number", "array", "table", "items"):
        assert graph.setting(thing, name) is getattr(thing, name)
    assert not graph.changed()
    thing.array[...] = 5  # the same array
    assert not graph.changed()
    others = [
        ("number", 2), ("number", np.ones(2)), ("array", thing.array.copy()), ("array", None),
        ("table", {"a": 2}), ("items", []),
    ]  # fmt: skip
    for name, other in others:
        kept = getattr(thing, name)
        setattr(thing, name, other)
        assert graph.changed()
        setattr(thing, name, kept)
    thing.table["a"] = 3
    assert graph.changed()
    thing.table["a"] = 1
    thing.items.append(1)
    assert graph.changed()


def test_settings_that_are_computed_or_methods():
    class Slotted:
        __slots__ = ("number",)

        def forward(self):
            pass

    class Computed(Thing):
        number = property(lambda self: self.twice / 2)

        def forward(self):
            pass

    slotted, computed, graph = Slotted(), Computed(), Graph()
    slotted.number, computed.twice = 1, 4
    for owner in (slotted, computed):
        graph.setting(owner, "number")
        graph.setting(owner, "forward")
    assert not graph.changed()
    slotted.number = 2
    assert graph.changed()
    slotted.number = 1
    computed.twice = 6
    assert graph.changed()
    computed.twice = 4
    computed.forward = print
    assert graph.changed()
    del computed.forward
    assert not graph.changed()


def test_an_array_has_one_value_and_labels_say_where():
    graph = Graph()
    array = np.zeros((2, 3), np.float32)
    value = graph.array(array)
    assert graph.array(array) is value
    view = graph.view(value, (6,))
    assert (view.root, view.dtype, view.nbytes) == (value, value.dtype, 24)
    with graph.inside("0 Sequential", "0", None), graph.inside("1 Own", "1", None):
        graph.python("forward", print, (value,), ())
        assert [name for name, _ in graph.places] == ["0", "1"]
    graph.draw("mask", print, (), (value,))
    assert [o.label for o in graph.operations] == ["0 Sequential 1 Own forward"]
    assert [o.label for o in graph.first] == ["mask"]
    assert graph.places == ()
