"""Makes the scripts and the calls of a Cluster. They differ from those of one server in two points; all else
stays as it is, byte by byte.

A slot can be moved key by key, and meanwhile a part of a shard is on one node and the rest on another. A
script that runs then would miss what lies elsewhere, or break off after its first writes. So each call names
two keys more, its guards, which never exist. While a slot is being moved, a node answers a call with a key
that it does not have with TRYAGAIN or ASK, and a call of several keys after ASKING with TRYAGAIN: no script
runs on either side until the slot has one owner (tried with Valkey 9.1 and Redis 7.0, after each step of a
move). A shard stands still for as long as its slot is being moved, and each script is whole.

A message goes to the subscribers at the node of its channel alone (SPUBLISH): with PUBLISH, each message
would be sent to every node. So all channels of a shard lie in its slot. A reply channel, whose name travels
with the job, is one channel in each shard: a script takes the tag of its own shard in place of that in the
name. A name without a tag, as of a job whose caller wants no answer, is nobody's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncq.broker.schema.keys import Keys

FUNCTIONS = """\
local own_tag = string.match(table.remove(KEYS), '^{[^}]*}')
table.remove(KEYS)
local function publish_in_shard(channel, message)
  local here, is_ours = string.gsub(channel, '^{[^}]*}', own_tag, 1)
  return is_ours == 1 and redis.call('SPUBLISH', here, message) or 0
end
"""
"""What stands in front of each script: it takes the guards away, and publishes in the shard of the script."""


def guards(keys: Keys) -> tuple[str, str]:
    """Returns the keys that each call of a script in a shard names last. They never exist."""
    return f"{keys.tag}:none:1", f"{keys.tag}:none:2"


def replaced(texts: dict[str, str]) -> dict[str, str]:
    """Returns the texts of the script files as a Cluster gets them."""
    return {name: text.replace("redis.call('PUBLISH', ", "publish_in_shard(") for name, text in texts.items()}
