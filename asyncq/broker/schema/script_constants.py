"""The names by which scripts write the letters of records and what follows the prefix of a key.

A letter is written once, in `wire`, `records` or `keys`, and the tag of an answer in `answer_tags`. The
loader of the scripts replaces `STATE.LIVE` by `'L'`, so the server never sees the names.
"""

from __future__ import annotations

from dataclasses import fields

from asyncq import wire
from asyncq.broker.schema import answer_tags, records
from asyncq.broker.schema.keys import Keys


def _key_names() -> dict[str, str]:
    """Returns what follows the prefix in the name of each key and channel: for `RECORDS` it is `r:`."""
    keys = Keys("")
    names = [field.name for field in fields(keys) if field.name not in {"namespace", "shard", "tag"}]
    return {name.upper(): getattr(keys, name).removeprefix(keys.key_prefix) for name in names}


CONSTANTS: dict[str, dict[str, str]] = {
    "STATE": {
        "LIVE": wire.LIVE,
        "SCHEDULED": wire.SCHEDULED,
        "RETRYING": wire.RETRYING,
        "DEFERRED": wire.DEFERRED,
        "WAITING": wire.WAITING,
        "SUCCEEDED": wire.SUCCEEDED,
        "FAILED": wire.FAILED,
        "LOST": wire.LOST,
        "REVOKED": wire.REVOKED,
        "EXPIRED": wire.EXPIRED,
        "TOMBSTONE": wire.TOMBSTONE,
    },
    "SIGNAL": {"NONE": records.NO_FLAG, "BY_STRENGTH": records.NO_FLAG + wire.SIGNALS},
    "WISH": {"NONE": records.NO_FLAG, "IGNORED": records.IGNORED, "FORGOTTEN": records.FORGOTTEN},
    "LINK": {
        "NONE": records.NO_FLAG,
        "DEPENDENTS": records.DEPENDENTS,
        "VALUES": records.VALUES,
        "BOTH": records.BOTH_LINKS,
    },
    "FLAGS": {"NONE": records.NO_FLAG * 3},
    "REQUEST": {
        "EXPIRES": records.EXPIRES,
        "STARTED": records.EXPIRES + records.STARTED_IN_TIME,
        "HIDES_START": wire.UNTRACKED,
    },
    "KEY": _key_names(),
    "ANSWER": {name: tag.decode() for name, tag in vars(answer_tags).items() if isinstance(tag, bytes)},
}
"""What stands for `TABLE.NAME` in a script: by the table, and by the name in it."""
