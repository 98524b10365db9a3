"""Server URLs: no error shows a password, and an unclear URL is refused with an error that says what to
write.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, given, strategies as st

from asyncq import AsyncQ, BrokerNotConfigured
from asyncq.broker.transport.connection import parse
from asyncq.broker.transport.url import mask
from asyncq.cli.invocation import Invocation

NASTY = "#/?[]@:%&="
# A URL cannot contain half of a surrogate pair, percent-encoded or not.
PASSWORDS = st.text(st.sampled_from(NASTY) | st.characters(exclude_categories=["Cs"]), min_size=3)
FORMS = [
    "redis://me:{}@db:6379/0",
    "redis://:{}@db",
    "rediss://me:{}@db/0?ssl_cert_reqs=none",
    "unix://me:{}@/tmp/s",
    "redis://db:6379/0?password={}",
    "redis://u:other@db/0?db=1&password={}",
    "rediss://db/0?ssl_password={}&db=1",
    "rediss://db?ssl%5Fp%61ssword={}",
    "redis+sentinel://me:{}@h1:26379,h2/shop/0",
    "redis+sentinel://:{}@h1,h2:26379/shop",
    "redis+sentinel://h1,h2/shop?sentinel_password={}",
    "redis+cluster://me:{}@h1:7000,h2",
    "redis+cluster://h1,h2?password={}",
    "me:{}@db:6379",
    "--url=redis://me:{}@db",
]


@given(st.sampled_from(FORMS), PASSWORDS)
def test_a_password_that_is_percent_encoded_is_never_shown(form, password):
    encoded = quote(password, safe="")
    assume(encoded not in form.format("***"))  # "non" is in ssl_cert_reqs=none
    assert encoded not in mask(form.format(encoded))


# In the value of an option, `&` begins the next option. So only the encoded form is the whole password.
@given(st.sampled_from([form for form in FORMS if "password" not in unquote(form)]), PASSWORDS)
def test_a_password_that_is_not_percent_encoded_is_not_shown_either(form, password):
    assume(password not in form.format("***"))
    assert password not in mask(form.format(password))


@given(st.text(st.sampled_from(NASTY + "redis:/@[]") | st.characters()))
def test_masking_a_url_never_fails(text):
    once = mask(text)
    assert mask(once) == once
    assert mask("redis://" + text)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:secret@db:6379/0", "redis://me:***@db:6379/0"),
        ("redis://:secret@[::1]:6379/0", "redis://:***@[::1]:6379/0"),
        ("redis://db:6379/0", "redis://db:6379/0"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://db/0?password=secret&db=1", "redis://db/0?password=***&db=1"),
        ("redis://:sec/ret@db", "redis://:***@db"),
        ("redis://:sec@ret@db", "redis://:***@db"),
        ("redis://:secret", "redis://:***"),
        ("redis://me:secret", "redis://me:***"),
        ("redis://localhost:abc", "redis://localhost:abc"),
        ("redis://127.0.0.1:abc/0", "redis://127.0.0.1:abc/0"),
        ("redis://db:6379/0?password=se@cret", "redis://db:***"),
        ("unix:///tmp/s?password=secret", "unix:///tmp/s?password=***"),
        ("redis+sentinel://h1:26379,h2:26379/shop/0", "redis+sentinel://h1:26379,h2:26379/shop/0"),
        ("redis+sentinel://h1,h2:26379,[::1]:5/shop", "redis+sentinel://h1,h2:26379,[::1]:5/shop"),
        ("redis+cluster://h1,h2:6379,[::1]:5", "redis+cluster://h1,h2:6379,[::1]:5"),
        ("redis+cluster://me:secret@h1,h2:5", "redis+cluster://me:***@h1,h2:5"),
        ("redis+sentinel://me:secret@h1,h2:5/shop", "redis+sentinel://me:***@h1,h2:5/shop"),
        ("redis+sentinel://h1/s?sentinel_password=secret", "redis+sentinel://h1/s?sentinel_password=***"),
        ("embedded://", "embedded://"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert mask(url) == shown


@pytest.mark.parametrize("character", NASTY)
def test_a_password_is_used_as_it_is_or_refused_with_how_to_write_it(character):
    """A URL that can be understood is accepted. Otherwise no part of it is taken for a host."""
    password = f"s{character}ecret"
    assert parse(f"redis://me:{quote(password, safe='')}@db:6380/2").options["password"] == password
    for url in (
        f"redis://me:{password}@db:6380/2",
        f"redis://12{character}3:4{character}5@db",
        f"unix://:{password}@/s",
    ):
        if character in "@:&=":
            assert parse(url).options["password"] in (password, f"4{character}5", f"3:4{character}5")
            continue
        with pytest.raises(BrokerNotConfigured) as caught:
            parse(url)
        assert "percent-encoded: urllib.parse.quote(password, safe='')" in str(caught.value)
        assert "ecret" not in str(caught.value)


MISTAKES = {
    "redis://db/0?foo=1": "there is no option 'foo'",
    "redis://db/0?pasword=x": "there is no option 'pasword'\nDid you mean 'password'?",
    "redis://db/0?socket_timeout=5": "asyncq decides that itself\nLeave it out",
    "redis://db/0?decode_responses=True": "asyncq decides that itself\nLeave it out",
    "redis://db/0?ssl_cert_reqs=none": "is for TLS\nWrite rediss:// instead of redis://",
    "rediss://db/0?ssl_cert_reqs=CERT_NONE": "Write ssl_cert_reqs=none",
    "rediss://db/0?ssl_cert_reqs=": "Write ssl_cert_reqs=none or optional or required",
    "rediss://db/0?ssl_min_version=TLSv1.2": "Write 771 for TLS 1.2",
    "redis://db/x": "the database 'x' is not a whole number, 0 or more\nWrite redis://host:6379/0",
    "redis://db/-1": "the database '-1' is not a whole number",
    "redis://db/1/2": "the database '1/2' is not a whole number",
    "redis://db?db=one": "the database 'one' is not a whole number",
    "unix:///tmp/s?db=-1": "the database '-1' is not a whole number",
    "unix:///tmp/s?db=x": "the database 'x' is not a whole number, 0 or more\nWrite unix:///path/to/socket?db=0",
    "redis://db/0?db=3": "the database is given twice\nLeave one of them out",
    "redis://db?db=3&db=3": "the database is given twice",
    "redis://me@db?username=me": "the user is given twice",
    "redis://:a@db?password=b": "the password is given twice",
    "redis://db:port/0": "the port is not a number",
    "redis://localhost:abc": "localhost:abc': the port 'abc' is not a number from 1 to 65535\nWrite ",
    "redis://:a@db:abc": "@db:abc': the port 'abc' is not a number from 1 to 65535\nWrite db:6379",
    "redis://db:99999/0": "the port '99999' is not a number from 1 to 65535\nWrite db:6379",
    "redis://db:0": "the port '0' is not a number from 1 to 65535",
    "redis://::1:6379/0": "the host has more than one colon\nWrite an IPv6 address in brackets: [::1]:6379",
    "redis://db/0#x": "there is a # in it",
    "redis://[::1/0": "it is not a URL",
    "redis://db/0?a": "is not a list of name=value",
    "redis+sentinel://h1,h2": "it does not name a master\nWrite redis+sentinel://host1:26379,host2:26379/",
    "redis+sentinel://h1,h2//0": "it does not name a master",
    "redis+sentinel:///shop": "one of its hosts is empty\nWrite redis+sentinel://host1:26379,",
    "redis+sentinel://h1,,h2/shop": "one of its hosts is empty",
    "redis+sentinel://h1:port,h2/shop": "the port is not a number from 1 to 65535",
    "redis+sentinel://h1,h2:99999/shop": "the port '99999' is not a number from 1 to 65535",
    "redis+sentinel://h1/shop/x": "the database 'x' is not a whole number, 0 or more\nWrite redis+sentinel://",
    "redis+sentinel://h1/shop/1?db=2": "the database is given twice",
    "redis+sentinel://h1/a%20b": "a character that no such name has",
    "redis+sentinel://h1/shop#x": "there is a # in it",
    "redis+cluster://h1,h2/1": "it names a database\nLeave it out: a Cluster has one database",
    "redis+cluster://h1?db=1": "it names a database",
    "redis+cluster://": "one of its hosts is empty\nWrite redis+cluster://host1:6379,host2:6379",
    "redis+cluster://h1,,h2": "one of its hosts is empty",
    "redis+cluster://h1:port": "the port is not a number from 1 to 65535",
    "redis+cluster://h1#x": "there is a # in it",
    "redis+cluster://h1?ssl_cert_reqs=none": "Write rediss+cluster:// instead of redis+cluster://",
    "redis+cluster://h1?sentinel_password=x": "there is no option 'sentinel_password'",
    "redis+sentinel://h1/shop?sentinel_pasword=x": "Did you mean 'sentinel_password'?",
    "redis+sentinel://h1/s?sentinel_password=a&sentinel_password=b": "is given twice\nLeave one of them out",
    "redis+sentinel://h1/shop?ssl_cert_reqs=none": "Write rediss+sentinel:// instead of redis+sentinel://",
    "rediss+sentinel://h1/shop?ssl_cert_reqs=x": "Write ssl_cert_reqs=none or optional or required",
    "redis+sentinel://me:a/b@h1,h2/shop": "the host is not clear",
    "redis+sentinel://me:a?b@h1,h2/shop": "the host is not clear",
    "redis+sentinel://me:50%@h1,h2/shop": "a % is not followed by the code of a character",
    "redis://h1/0?sentinel_password=x": "there is no option 'sentinel_password'",
    "unix://tmp/s": "Write three slashes",
    "unix://": "the socket has no path",
}


@pytest.mark.parametrize("url", MISTAKES)
def test_a_mistake_in_a_url_is_reported_with_what_to_write(url):
    with pytest.raises(BrokerNotConfigured) as caught:
        parse(url)
    assert MISTAKES[url] in str(caught.value)
    assert str(caught.value).count("\n") == 1
    with pytest.raises(BrokerNotConfigured):
        parse(url.replace("redis", "valkey"))


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://db", {"host": "db"}),
        ("redis://", {}),
        ("redis:///3", {"db": 3}),
        ("redis://[::1]:6380/3/", {"host": "::1", "port": 6380, "db": 3}),
        ("valkey://me@db:/0", {"host": "db", "db": 0, "username": "me"}),
        ("redis://db?db=2&username=a&password=b%23&socket_keepalive=1", {"password": "b#", "db": 2}),
        ("unix://me:p@/tmp/a@b:c?db=2", {"path": "/tmp/a@b:c", "password": "p", "db": 2}),
        ("valkey+unix:///tmp/s", {"path": "/tmp/s"}),
        ("valkeys://db/0?ssl_cert_reqs=none&ssl_min_version=771", {"ssl_cert_reqs": "none"}),
    ],
)
def test_a_valid_url_is_accepted(url, options):
    found = parse(url).options
    assert {name: found.get(name) for name in options} == options


def test_no_repr_shows_the_password():
    for url in ("redis://me:secret@db/0", "redis://db/0?password=secret"):
        shown = [AsyncQ(url), AsyncQ(url).settings, parse(url), Invocation(url, arguments=("--url", url))]
        assert "secret" not in repr(shown)


def test_a_url_of_sentinels_names_the_master_and_gives_each_of_both_its_own_credentials():
    url = "rediss+sentinel://me:p%40ss@h1,[::1]:5/shop/3?sentinel_username=s&sentinel_password=%23&ssl_ca_certs=/ca"
    address = parse(url)
    tls = {"ssl_ca_certs": "/ca"}
    assert address.url == url
    assert address.options == {"username": "me", "password": "p@ss", "db": 3, **tls}
    assert address.sentinels is not None
    assert address.sentinels.master == "shop"
    own = {"username": "s", "password": "#", **tls}
    assert [each.options for each in address.sentinels.in_order()] == [
        {"host": "h1", "port": 26379, **own},
        {"host": "::1", "port": 5, **own},
    ]
    assert "p%40ss" not in repr(address)
    assert "%23" not in repr(address)


@pytest.mark.parametrize("character", NASTY)
def test_a_password_in_a_url_of_sentinels_is_used_as_it_is_or_refused(character):
    password = f"s{character}ecret"
    encoded = quote(password, safe="")
    address = parse(f"redis+sentinel://me:{encoded}@h1,h2/shop?sentinel_password={encoded}")
    assert address.options["password"] == password
    assert address.sentinels is not None
    assert {each.options["password"] for each in address.sentinels.in_order()} == {password}
    url = f"redis+sentinel://me:{password}@h1,h2/shop"
    if character in "@:&=":
        assert parse(url).options["password"] == password
        return
    with pytest.raises(BrokerNotConfigured) as caught:
        parse(url)
    assert "percent-encoded: urllib.parse.quote(password, safe='')" in str(caught.value)
    assert "ecret" not in str(caught.value)
