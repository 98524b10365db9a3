"""The commands that asyncq sends, and those that its scripts call: what is answered, by either server."""

from __future__ import annotations

import pytest

from asyncq.broker.transport.server_error import ServerError

pytestmark = pytest.mark.anyio

ENTRY = [b"1-1", [b"f", b"v"]]

ANSWERS = {
    "strings": [
        (("MGET", "{k}a", "{k}b"), [None, None]),
        (("SET", "{k}a", "one", "NX"), b"OK"),
        (("SET", "{k}a", "two", "NX"), None),
        (("APPEND", "{k}a", "!"), 4),
        (("SETRANGE", "{k}a", 1, "X"), 4),
        (("MGET", "{k}a", "{k}b"), [b"oXe!", None]),
        (("GETRANGE", "{k}a", 0, 0), b"o"),
        (("GETRANGE", "{k}b", 0, 0), b""),
        (("PTTL", "{k}a"), -1),
        (("PEXPIRE", "{k}a", 0), 1),
        (("PTTL", "{k}a"), -2),
        (("PEXPIRE", "{k}a", 100), 0),
        (("SET", "{k}a", "one", "PX", 100_000), b"OK"),
        (("SET", "{k}a", "two"), b"OK"),
        (("PTTL", "{k}a"), -1),
        (("SET", "{k}a", "three", "NX", "GET"), b"two"),
        (("SET", "{k}a", "four", "XX", "GET", "PX", 100_000), b"two"),
        (("SET", "{k}a", "five", "XX", "GET"), b"four"),
        (("PTTL", "{k}a"), -1),
        (("DEL", "{k}a", "{k}b"), 1),
        (("SET", "{k}a", "one", "XX", "GET"), None),
        (("SET", "{k}a", "one", "NX", "GET"), None),
        (("SET", "{k}a", "two", "NX", "GET"), b"one"),
        (("DEL", "{k}a"), 1),
    ],
    "hashes": [
        (("HSET", "{k}a", "x", 1, "y", 2), 2),
        (("HSET", "{k}a", "x", 3), 0),
        (("HGET", "{k}a", "x"), b"3"),
        (("HGET", "{k}a", "z"), None),
        (("HMGET", "{k}a", "x", "z"), [b"3", None]),
        (("HGETALL", "{k}a"), {b"x": b"3", b"y": b"2"}),
        (("HGETALL", "{k}b"), {}),
        (("HLEN", "{k}a"), 2),
        (("HINCRBY", "{k}a", "x", -4), -1),
        (("MGET", "{k}a"), [None]),
        (("HDEL", "{k}a", "x", "y", "z"), 2),
        (("DEL", "{k}a"), 0),
    ],
    "sets": [
        (("SADD", "{k}a", "x", "y"), 2),
        (("SADD", "{k}a", "x", "z"), 1),
        (("SREM", "{k}a", "y", "z", "w"), 2),
        (("SMEMBERS", "{k}a"), [b"x"]),
        (("SREM", "{k}a", "x"), 1),
        (("SMEMBERS", "{k}a"), []),
        (("DEL", "{k}a"), 0),
    ],
    "sorted sets": [
        (("ZADD", "{k}a", 2, "b", 1, "c", 1, "a"), 3),
        (("ZADD", "{k}a", "NX", 5, "a"), 0),
        (("ZADD", "{k}a", "XX", 3, "a", 3, "new"), 0),
        (("ZRANGE", "{k}a", 0, -1), [b"c", b"b", b"a"]),
        (("ZRANGE", "{k}a", 0, 0), [b"c"]),
        (("ZRANGE", "{k}a", 1, 2, "WITHSCORES"), [[b"b", 2.0], [b"a", 3.0]]),
        (("ZRANK", "{k}a", "b"), 1),
        (("ZRANK", "{k}a", "z"), None),
        (("ZCOUNT", "{k}a", "-inf", "(3"), 2),
        (("ZRANDMEMBER", "{k}b", 2), []),
        (("ZSCORE", "{k}a", "a"), 3.0),
        (("ZSCORE", "{k}a", "z"), None),
        (("ZRANGEBYSCORE", "{k}a", "-inf", 2, "LIMIT", 0, 1), [b"c"]),
        (("ZRANGEBYSCORE", "{k}a", "-inf", 2), [b"c", b"b"]),
        (("ZCARD", "{k}a"), 3),
        (("ZREM", "{k}a", "a", "b", "c"), 3),
        (("DEL", "{k}a"), 0),
    ],
    "streams": [
        (("XLEN", "{k}a"), 0),
        (("XADD", "{k}a", "1-1", "f", "v"), b"1-1"),
        (("XADD", "{k}a", "1-2", "f", "w"), b"1-2"),
        (("XADD", "{k}a", "2-0", "f", "x"), b"2-0"),
        (("XADD", "{k}a", "2-0", "f", "x"), ServerError("ERR")),
        (("XRANGE", "{k}a", "1-1", "1-1"), [ENTRY]),
        (("XRANGE", "{k}a", "1", "1"), [ENTRY, [b"1-2", [b"f", b"w"]]]),
        (("XRANGE", "{k}a", "-", "+", "COUNT", 1), [ENTRY]),
        (("XRANGE", "{k}a", "(1-1", "1"), [[b"1-2", [b"f", b"w"]]]),
        (("XREVRANGE", "{k}a", "+", "-", "COUNT", 1), [[b"2-0", [b"f", b"x"]]]),
        (("XTRIM", "{k}a", "MINID", 2), 2),
        (("XDEL", "{k}a", "2-0", "9-9"), 1),
        (("XLEN", "{k}a"), 0),
        (("XADD", "{k}a", "1-1", "f", "v"), ServerError("ERR")),
        (("XADD", "{k}b", "*", "f"), ServerError("ERR")),
        (("XTRIM", "{k}a", "MAXLEN", 0), 0),
    ],
    "groups": [
        (("XGROUP", "CREATE", "{k}a", "g", "0"), ServerError("ERR")),
        (("XPENDING", "{k}a", "g", "-", "+", 10), ServerError("NOGROUP")),
        (("XPENDING", "{k}a", "g"), ServerError("NOGROUP")),
        (("XACK", "{k}a", "g", "1-1"), 0),
        (("XGROUP", "CREATE", "{k}a", "g", "0", "MKSTREAM"), b"OK"),
        (("XGROUP", "CREATE", "{k}a", "g", "0", "MKSTREAM"), ServerError("BUSYGROUP")),
        (("XREADGROUP", "GROUP", "g", "me", "COUNT", 1, "STREAMS", "{k}a", ">"), None),
        (("XADD", "{k}a", "1-1", "f", "v"), b"1-1"),
        (("XADD", "{k}a", "1-2", "f", "w"), b"1-2"),
        (("XREADGROUP", "GROUP", "g", "me", "COUNT", 1, "STREAMS", "{k}a", ">"), {"{k}a": [ENTRY]}),
        (
            ("XREADGROUP", "GROUP", "g", "you", "COUNT", 9, "STREAMS", "{k}a", ">"),
            {"{k}a": [[b"1-2", [b"f", b"w"]]]},
        ),
        (("XREADGROUP", "GROUP", "none", "me", "STREAMS", "{k}a", ">"), ServerError("NOGROUP")),
        (("XPENDING", "{k}a", "g"), [2, b"1-1", b"1-2", [[b"me", b"1"], [b"you", b"1"]]]),
        (("XDEL", "{k}a", "1-1"), 1),
        (("XPENDING", "{k}a", "g", "1-1", "1-1", 1, "you"), []),
        (("XACK", "{k}a", "g", "1-1", "1-1"), 1),
        (("XPENDING", "{k}a", "g", "-", "+", 9, "me"), []),
        (("XPENDING", "{k}a", "g", "(1-1", "+", 9, "me"), []),
        (("XGROUP", "DELCONSUMER", "{k}a", "g", "you"), 1),
        (("XPENDING", "{k}a", "g"), [0, None, None, None]),
        (("XGROUP", "DELCONSUMER", "{k}a", "g", "nobody"), 0),
        (("XINFO", "CONSUMERS", "{k}b", "g"), ServerError("ERR")),
        (("XINFO", "CONSUMERS", "{k}a", "none"), ServerError("NOGROUP")),
    ],
    "errors": [
        (("SET", "{k}a", "one"), b"OK"),
        (("HGET", "{k}a", "x"), ServerError("WRONGTYPE")),
        (("XLEN", "{k}a"), ServerError("WRONGTYPE")),
        (("NONSENSE",), ServerError("ERR")),
        (("EVALSHA", "0" * 40, 0), ServerError("NOSCRIPT")),
    ],
}


@pytest.fixture
async def open_pipe(broker):
    """Makes connections, which are closed after the test."""
    lines = []

    async def make(**options):
        lines.append(broker.commands.new_connection("test", **options))
        return await lines[-1].pipe()

    yield make
    for line in lines:
        line.close()


def _named(value, key):
    if isinstance(value, str):
        return value.replace("{k}", key)
    if isinstance(value, tuple):
        return tuple(_named(part, key) for part in value)
    if isinstance(value, dict):
        return {_named(name, key).encode() if isinstance(name, str) else name: value[name] for name in value}
    return value


@pytest.mark.parametrize("kind", ANSWERS)
async def test_each_command_gets_the_answer_in_the_table(broker, open_pipe, leaves_keys, kind):
    shard = broker.shards[0]
    pipe = await open_pipe()  # there no error is mended by sending again
    for command, expected in ANSWERS[kind]:
        try:
            answer = await pipe.call(*_named(command, f"{shard.key_prefix}x:"))
        except ServerError as error:
            answer = error
        if isinstance(expected, ServerError):
            assert isinstance(answer, ServerError), command
            assert answer.code == expected.code, command
        else:
            assert answer == _named(expected, f"{shard.key_prefix}x:"), command


async def test_keys_are_counted_and_found_by_their_first_letters(broker, leaves_keys):
    shard, send = broker.shards[0], broker.commands.send
    before = await send(shard, "DBSIZE")
    names = [f"{shard.key_prefix}x:{name}" for name in ("a1", "a2", "b")]
    for name in names:
        await send(shard, "SET", name, "one")
    assert await send(shard, "DBSIZE") >= before + len(names)
    cursor, found = b"0", set()
    while True:
        cursor, some = await send(shard, "SCAN", cursor, "MATCH", f"{shard.key_prefix}x:a*", "COUNT", 1000)
        found.update(some)
        if cursor == b"0":
            break
    assert found == {name.encode() for name in names[:2]}
    await send(shard, "DEL", *names)


SCRIPTS = {
    "return {1, 2.9, 'x', true, false, 3, nil, 4}": [1, 2, b"x", 1, None, 3],
    "return redis.call('MGET', KEYS[1])": [None],
    "return redis.call('MGET', KEYS[1])[1] == false": 1,
    "redis.call('HSET', KEYS[1], 'a', 1.5, 'b', 2) return redis.call('HGETALL', KEYS[1])": [
        *(b"a", b"1.5", b"b", b"2"),
    ],
    "redis.call('ZADD', KEYS[1], 1.5, 'a') return redis.call('ZSCORE', KEYS[1], 'a')": b"1.5",
    "redis.call('ZADD', KEYS[1], 1.5, 'a') return redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')": [
        *(b"a", b"1.5"),
    ],
    "return type(redis.call('TIME')[1] * 1)": b"number",
    "return redis.pcall('XPENDING', KEYS[1], 'g', '-', '+', 1)['err'] ~= nil": 1,
    "return redis.call('XPENDING', KEYS[1], 'g', '-', '+', 1)": ServerError("NOGROUP"),
    "error(redis.pcall('XPENDING', KEYS[1], 'g', '-', '+', 1))": ServerError("NOGROUP"),
    "error('no')": ServerError("ERR"),
    "return redis.call('SET', KEYS[1], ARGV[1])": b"OK",
    "return cmsgpack.unpack(ARGV[2])": [[1, b"x"], b"\xff"],
    "return math.floor(3.7) .. ' ' .. string.format('%d', 2^40)": b"3 1099511627776",
    "return 2^40": 2**40,
    "return redis.acl_check_cmd('GET', KEYS[1])": 1,
}


@pytest.mark.parametrize("body", SCRIPTS)
async def test_each_script_reads_and_returns_the_values_in_the_table(broker, body):
    shard, send = broker.shards[0], broker.commands.send
    key = f"{shard.key_prefix}x:a"
    sha = await send(shard, "SCRIPT", "LOAD", f"#!lua\n{body}")
    arguments = (b"value", b"\x92\x92\x01\xa1x\xa1\xff")
    expected = SCRIPTS[body]
    if isinstance(expected, ServerError):
        with pytest.raises(ServerError) as caught:
            await send(shard, "EVALSHA", sha, 1, key, *arguments)
        assert caught.value.code == expected.code
    else:
        assert await send(shard, "EVALSHA", sha, 1, key, *arguments) == expected
    await send(shard, "DEL", key)


async def test_a_blocking_read_returns_when_an_entry_arrives_or_its_time_is_over(broker, open_pipe):
    shard = broker.shards[0]
    stream = f"{shard.key_prefix}x:s"
    await broker.commands.send(shard, "XGROUP", "CREATE", stream, "g", "0", "MKSTREAM")
    pipe = await open_pipe()
    read = ("XREADGROUP", "GROUP", "g", "me", "COUNT", 1, "BLOCK", 10_000, "STREAMS", stream, ">")
    found = []
    pipe.send(read, found.append)
    pipe.send(("PING",), found.append)
    await broker.commands.send(shard, "XADD", stream, "1-1", "f", "v")
    await pipe.call("PING")
    assert found == [{stream.encode(): [ENTRY]}, b"PONG"]
    assert await pipe.call(*read[:7], 20, *read[8:]) is None
    await broker.commands.send(shard, "DEL", stream)


async def test_a_message_reaches_the_subscribers_of_its_channel(broker, open_pipe):
    shard = broker.shards[0]
    channel = f"{shard.key_prefix}x:channel"
    pushes: list[list[object]] = []
    pipe = await open_pipe(on_push=pushes.append)
    pipe.post("SUBSCRIBE", channel)
    assert await pipe.call("PING") == b"PONG"
    assert await broker.commands.send(shard, "PUBLISH", channel, b"\x00\xff") == 1
    assert await pipe.call("PING") == b"PONG"
    pipe.post("UNSUBSCRIBE", channel)
    assert await pipe.call("PING") == b"PONG"
    assert await broker.commands.send(shard, "PUBLISH", channel, b"late") == 0
    name = channel.encode()
    assert [list(push) for push in pushes] == [
        [b"subscribe", name, 1],
        [b"message", name, b"\x00\xff"],
        [b"unsubscribe", name, 0],
    ]
