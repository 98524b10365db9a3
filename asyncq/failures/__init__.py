"""Exceptions that travel without pickle: what a task raised, and what the caller gets to see of it.

`encode` never raises, whatever the exception does to prevent it: a worker that cannot report a failure would
lose the job. `Failure.rebuild` runs in the caller's process on data that anybody may have written, so it
looks a class up only among what is imported there already, and calls nothing but the constructor and `str()`
of an `Exception`.

The way of an exception, through the files of this package:

    encoding -> attributes, validation, texts     what is sent of it
    decoding -> failure                           bytes -> a `Failure`
    failure -> rebuilding -> lookup, attributes   the exception itself, if an equal one can be made,
                          -> remote               or what stands in for it
    raw, fields, plain                            what exceptions hold, read without the code of their authors
"""

from asyncq.failures.decoding import decode
from asyncq.failures.encoding import encode, encode_short
from asyncq.failures.failure import Failure, add_note
from asyncq.failures.texts import of_task, one_line, short

__all__ = ["Failure", "add_note", "decode", "encode", "encode_short", "of_task", "one_line", "short"]
