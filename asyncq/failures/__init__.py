"""Sends exceptions without pickle: the worker encodes what a task raised, and the caller raises it again.
Nothing here talks to a server, and everything may be called on any thread.

`encode` never raises, whatever the exception does: a worker that cannot report a failure would lose the job.
`Failure.rebuild` runs in the caller's process on data that anybody may have written. So it finds a class only
among those that are imported there already, and calls nothing but `__new__`, `__init__` and `__str__` of an
`Exception`.

The way of an exception through the modules of this package:

    encoding -> attributes, validation, texts     what is sent of it
    decoding -> failure                           bytes -> a `Failure`
    failure -> rebuilding -> lookup, attributes   the exception itself, if an equal one can be made,
                          -> remote               else a `RemoteError` in its place
    raw, fields, plain                            what exceptions hold, read without code of their classes
"""

from asyncq.failures.decoding import decode
from asyncq.failures.encoding import encode, encode_short
from asyncq.failures.failure import Failure, add_note
from asyncq.failures.texts import of_task, one_line, short

__all__ = ["Failure", "add_note", "decode", "encode", "encode_short", "of_task", "one_line", "short"]
