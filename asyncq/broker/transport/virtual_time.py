"""Makes the scripts of a test server: they read the time of a virtual clock, which a test sets ahead.

The clock is the server's own, plus the milliseconds in `KEY`. Production scripts do not know it: they stay as
they are, byte by byte. Three kinds of time stay those of the server's own clock: the numbers of the
observations that workers make of each other, for leases go by real time; the ids of stream entries but those
of dead letters, which are read as times; and the lives of keys, which the test shortens when it sets the
clock ahead.
"""

from __future__ import annotations

KEY = "asyncq:virtual-clock"
"""The key with the milliseconds by which the clock is ahead, as a text. It is in no namespace: a test server
has one clock."""

_REAL = frozenset({"_observations"})
"""The files whose time is that of the server's own clock."""

FUNCTIONS = f"""\
local function virtual_ms(time)
  return time[1] * 1000 + math.floor(time[2] / 1000) + (tonumber(redis.call('MGET', '{KEY}')[1]) or 0)
end
local function virtual_time()
  local time = redis.call('TIME')
  local ms = virtual_ms(time)
  return {{ math.floor(ms / 1000), ms % 1000 * 1000 + time[2] % 1000 }}
end
local function virtual_id() return string.format('%.0f-*', virtual_ms(redis.call('TIME'))) end
"""
"""What a script calls in place of the server's own clock."""

_REPLACED = (
    ("redis.call('TIME')", "virtual_time()"),
    ("redis.call('XADD', dead, '*'", "redis.call('XADD', dead, virtual_id()"),
)


def replaced(texts: dict[str, str]) -> dict[str, str]:
    """Returns the texts of the script files with the virtual clock in place of the server's."""
    return {name: text if name in _REAL else _replaced(text) for name, text in texts.items()}


def _replaced(text: str) -> str:
    for before, after in _REPLACED:
        text = text.replace(before, after)
    return text
