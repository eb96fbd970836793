"""Names of the int64 words through which other people's compiled code asks for a call.

A *request* lies on the caller's stack: what is asked for, as a *key*, and where the operands lie.
A *record* is a call of an entry that answers all requests of one key. Records lie in a *shelf*,
which is never moved, given back or made smaller: whatever a reader finds there is a record, of
whichever key. The key is all that the answer depends on but the addresses and the elements: the
function, and of every operand dtype, shape and steps, and of every option its form and value.
"""

from __future__ import annotations

__all__ = [
    "AT_RECORD", "AXES", "BUSY", "CALL_ROOM", "FIND", "FOUND", "KEEP", "KEY_ROOM", "KNOWN",
    "OPERANDS", "PLACES", "RECORDS", "RECORD_BAD", "RECORD_CALL", "RECORD_CALL_WORDS",
    "RECORD_DIGEST", "RECORD_ENTRY", "RECORD_EXTENTS", "RECORD_KEY", "RECORD_KEY_WORDS",
    "RECORD_LONG", "RECORD_PLACES", "RECORD_PLACES_COUNT", "RECORD_READERS", "RECORD_REPEAT",
    "RECORD_RESULT", "RECORD_SCRATCH", "RECORD_SHAPE", "RECORD_USED", "RECORD_WORDS",
    "RECORD_ZEROS", "REQUEST_CALL", "REQUEST_DONE", "REQUEST_FOUND", "REQUEST_KEY",
    "REQUEST_KEY_WORDS", "REQUEST_OPERANDS", "REQUEST_SCRATCH", "REQUEST_SHAPE", "REQUEST_SHELF",
    "REQUEST_WORDS", "RUN", "SETS", "SHELF_BLOCKED", "SHELF_ENTRY", "SHELF_HOLDER",
    "SHELF_PRESENT", "SHELF_RECORDS", "SHELF_RELEASE", "SHELF_RETAKE", "SHELF_WORDS", "WAYS",
]  # fmt: skip

# Words of a key, and of a call; operands: 0 is the scratch; axes of a result; places of addresses.
KEY_ROOM, CALL_ROOM, OPERANDS, AXES, PLACES = 96, 48, 6, 5, 12

# ------------------------------------------------------------------------- a request
(
    REQUEST_SHELF,  # address of the shelf
    REQUEST_KEY_WORDS,
    REQUEST_FOUND,  # address of the record, held until it has run; or 0
    REQUEST_DONE,  # 1: the result is there; 0: this call needs another way
    REQUEST_SCRATCH,  # bytes of scratch that the call needs
    REQUEST_SHAPE,  # of the result
    REQUEST_OPERANDS,  # addresses: scratch, operands, results
    REQUEST_CALL,  # room for the words of the call
    REQUEST_KEY,
    REQUEST_WORDS,
) = (
    0, 1, 2, 3, 4, 5, 5 + AXES, 5 + AXES + OPERANDS, 5 + AXES + OPERANDS + CALL_ROOM,
    5 + AXES + OPERANDS + CALL_ROOM + KEY_ROOM,
)  # fmt: skip

# ------------------------------------------------------------------------- a record
(
    RECORD_DIGEST,  # of the key; 0: no record, or one that is being written
    RECORD_READERS,  # requests that have found it, or are looking whether it is theirs
    RECORD_USED,  # 1: found since a place was last looked for
    RECORD_KEY_WORDS,
    RECORD_ENTRY,  # address of the entry
    RECORD_CALL_WORDS,
    RECORD_PLACES_COUNT,
    RECORD_SCRATCH,  # bytes
    RECORD_RESULT,  # number of the operand that nothing may overlap, or 0: it is new memory
    RECORD_BAD,  # word of the call that must be 0 afterwards, or 0
    RECORD_ZEROS,  # operand that is zeroed first, and its bytes
    RECORD_REPEAT,  # elements of the bias, how often each is wanted, bytes of one, where in scratch
    RECORD_LONG,  # 1: long enough for other threads to have the interpreter meanwhile
    RECORD_SHAPE,
    RECORD_EXTENTS,  # of each operand: bytes before and behind its address, up to its end
    RECORD_PLACES,  # words of the call to which an operand's address is added: word, operand
    RECORD_CALL,
    RECORD_KEY,
    RECORD_WORDS,
) = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 17, 17 + AXES, 17 + AXES + 2 * OPERANDS,
    17 + AXES + 2 * OPERANDS + 2 * PLACES, 17 + AXES + 2 * OPERANDS + 2 * PLACES + CALL_ROOM,
    17 + AXES + 2 * OPERANDS + 2 * PLACES + CALL_ROOM + KEY_ROOM,
)  # fmt: skip

# ------------------------------------------------------------------------- a shelf
# A key's digest says in which set its record is, if there is one; it is one of the set's ways.
SETS, WAYS = 128, 8
RECORDS = SETS * WAYS
(
    SHELF_ENTRY,  # address of `loops.kept.serve`
    SHELF_BLOCKED,  # address of a word: not 0 while no record may be found
    SHELF_HOLDER,  # addresses: which interpreter thread this is; which one runs; let it go; take it
    SHELF_PRESENT,
    SHELF_RELEASE,
    SHELF_RETAKE,
    SHELF_RECORDS,
) = (0, 1, 2, 3, 4, 5, 8)
SHELF_WORDS = SHELF_RECORDS + RECORDS * RECORD_WORDS

# What is asked of a shelf.
KEEP, FIND, RUN = range(3)
# To keep a record, a request has it where its shape would be; the answer stands at FOUND.
AT_RECORD = REQUEST_SHAPE
FOUND = REQUEST_FOUND
# Answers: the number of the record that has been written, or
KNOWN, BUSY = -2, -1
