"""Words have the same names where Python writes them and where the loops read them."""

from __future__ import annotations

import inspect
import itertools

import pytest

from fastconv.engine import words

# Of each function: the prefix of its words' names, how many there are, and keywords of several.
WRITERS = {
    words.call_words: ("", words.CALL_WORDS, {"source": 7, "target": 7}),
    words.pool_words: ("POOL_", words.POOL_CALL_WORDS, {}),
    words.columns_words: ("COLUMNS_", words.COLUMNS_CALL_WORDS, {"x": words.VIEW_WORDS}),
    words.delta_words: ("DELTA_", words.DELTA_CALL_WORDS, {}),
    words.phase_words: ("PHASE_", words.PHASE_WORDS, {"begin": 3, "end": 3, "start": 3}),
}
# Keywords that say more than the constant of a word that two kinds of call have in common.
NAMES = {
    "POOL_TABLE": "TABLE",
    "POOL_SCRATCH": "SCRATCH",
    "COLUMNS_TABLE": "TABLE",
    "DELTA_COLUMNS": "DELTA_F",
}


@pytest.mark.parametrize("write", WRITERS, ids=lambda f: f.__name__)
def test_every_keyword_is_the_word_of_its_name(write):
    prefix, count, several = WRITERS[write]
    numbers = itertools.count(1)
    given, expected = {}, {}
    for name in inspect.signature(write).parameters:
        name_of_word = prefix + name.upper()
        first = getattr(words, NAMES.get(name_of_word, name_of_word))
        values = [next(numbers) for _ in range(several.get(name, 1))]
        given[name] = values if name in several else values[0]
        expected |= {first + i: value for i, value in enumerate(values)}
    found = write(**given)
    assert len(found) == count
    assert {i: value for i, value in enumerate(found) if value} == expected


def test_an_axis_has_as_many_words_as_names():
    import numpy as np

    from fastconv.engine.tables.pool import PoolChoice, pool_table
    from fastconv.geometry.resolve import pool_geometry

    g = pool_geometry((2, 9, 12, 3), (2, 3), stride=(3, 4), padding=((0, 1), (1, 0)))
    table = pool_table(PoolChoice(g, np.dtype("float32"), False)).words
    at = words.POOL_AXES + words.AXIS_WORDS * words.W_AXIS
    fields = {"SIZE": 12, "WINDOW": 3, "STEP": 4, "APART": 1, "LOW": 1, "OUT": 3, "HIGH": 0}
    assert {n: table[at + getattr(words, f"AXIS_{n}")] for n in fields} == fields
    assert table[words.POOL_C] == 3
