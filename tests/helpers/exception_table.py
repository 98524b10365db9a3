"""`TABLE`: exceptions of the standard library and of widely used libraries, as programs meet them.

A test raises each directly and in a job. `docs/generate.py` makes the table of docs/exceptions.md from it.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import concurrent.futures
import configparser
import csv
import decimal
import email.errors
import errno
import fractions
import getopt
import http.client
import importlib
import ipaddress
import json
import pickle
import plistlib
import queue
import re
import shutil
import socket
import sqlite3
import ssl
import statistics
import struct
import subprocess
import sys
import tarfile
import tomllib
import urllib.error
import urllib.request
import uuid
import xml.etree.ElementTree as ET
import xml.parsers.expat
import zipfile
import zlib
import zoneinfo
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import botocore.exceptions
import click
import django.core.exceptions
import fastapi
import fastapi.exceptions
import httpx
import jinja2
import msgpack
import pydantic
import redis.exceptions
import requests
import sqlalchemy
import sqlalchemy.exc
import starlette.exceptions
import starlette.websockets
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Row:
    """One exception.

    Attributes:
        name: its name in the table.
        raises: returns the exception, or raises it as a program would meet it.
        caught_as: None if an exception of this class arrives; else the class by which the `RemoteError` is
            caught.
    """

    name: str
    raises: Callable[[], Any]
    caught_as: str | None = None

    def make(self) -> Exception:
        try:
            made = self.raises()
        except Exception as error:
            return error
        assert isinstance(made, Exception), f"{self.name} raises nothing"
        return made


class Model(pydantic.BaseModel):
    x: int
    names: list[str] = []

    @pydantic.field_validator("x")
    @classmethod
    def _is_small(cls, x: int) -> int:
        if x > 9:
            raise ValueError("too large")
        return x


def _run() -> None:
    code = "import sys; print('bad flag', file=sys.stderr); sys.exit(3)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def _sql(statement: str) -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("create table t (x integer unique)"))
            connection.execute(sqlalchemy.text(statement))
            connection.execute(sqlalchemy.text(statement), {"x": 1})
    finally:
        engine.dispose()


def _sqlite() -> None:
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("select * from nowhere")
    finally:
        connection.close()


def _http_status() -> None:
    request = httpx.Request("GET", "http://shop/item")
    httpx.Response(404, request=request).raise_for_status()


def _requests_status() -> None:
    response = requests.Response()
    response.status_code, response.url, response.reason = 404, "http://shop/item", "Not Found"
    response.raise_for_status()


def _aiohttp_status() -> aiohttp.ClientResponseError:
    info = aiohttp.RequestInfo(aiohttp.client.URL("http://shop"), "GET", None)
    return aiohttp.ClientResponseError(info, (), status=404, message="Not Found")


def _client_error(code: str) -> botocore.exceptions.ClientError:
    answer = {"Error": {"Code": code, "Message": "no such key"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
    return botocore.exceptions.ClientError(answer, "GetObject")


def _no_such_key() -> Exception:
    bases, names = (botocore.exceptions.ClientError,), {"__module__": "botocore.errorfactory"}
    made_by_a_client = type("NoSuchKey", bases, names)
    return made_by_a_client(_client_error("NoSuchKey").response, "GetObject")


def _attribute() -> None:
    None.nothing  # noqa: B018


def _name() -> None:
    nothing  # noqa: B018, F821


STANDARD = [
    Row("ValueError", lambda: ValueError("no", 1, {"a": [1]})),
    Row("KeyError", lambda: {}["k"]),
    Row("IndexError", lambda: [1][len(sys.argv) + 9]),
    Row("ZeroDivisionError", lambda: 1 / 0),
    Row("OverflowError", lambda: 1e308**2),
    Row("AssertionError", AssertionError),
    Row("NotImplementedError", lambda: NotImplementedError("later")),
    Row("RecursionError", lambda: RecursionError("too deep")),
    Row("MemoryError", MemoryError),
    Row("AttributeError", _attribute),
    Row("NameError", _name),
    Row("ImportError", lambda: exec("from json import nothing")),
    Row("ModuleNotFoundError", lambda: importlib.import_module("nowhere")),
    Row("SyntaxError", lambda: ast.parse("a b", "file.py")),
    Row("IndentationError", lambda: compile("if 1:\nx", "file.py", "exec")),
    Row("UnicodeDecodeError", lambda: b"\xff".decode("utf-8")),
    Row("UnicodeEncodeError", lambda: "ü".encode("ascii")),
    Row("UnicodeEncodeError, of a lone surrogate", "a\ud800".encode),
    Row("UnicodeTranslateError", lambda: UnicodeTranslateError("text", 0, 1, "no reason")),
    Row("OSError", lambda: OSError(errno.EXDEV, "cross-device link", "a", None, "b")),
    Row("FileNotFoundError", lambda: Path("/nowhere").stat()),
    Row("FileExistsError", lambda: Path("/").mkdir()),
    Row("NotADirectoryError", lambda: list(Path(__file__).iterdir())),
    Row("IsADirectoryError", lambda: Path("/").read_text()),
    Row("PermissionError", lambda: PermissionError(errno.EACCES, "Permission denied", b"secret")),
    Row("BlockingIOError", lambda: BlockingIOError(errno.EAGAIN, "busy", 3)),
    Row("ConnectionRefusedError", lambda: socket.create_connection(("127.0.0.1", 1), timeout=5)),
    Row("TimeoutError", lambda: TimeoutError("slow")),
    Row("socket.gaierror", lambda: socket.gaierror(socket.EAI_NONAME, "Name or service not known")),
    Row("ssl.SSLCertVerificationError", lambda: ssl.SSLCertVerificationError(1, "expired")),
    Row("asyncio.QueueFull", asyncio.QueueFull),
    Row("asyncio.InvalidStateError", lambda: asyncio.InvalidStateError("Result is not set.")),
    Row("asyncio.IncompleteReadError", lambda: asyncio.IncompleteReadError(b"ab", 5)),
    Row("asyncio.LimitOverrunError", lambda: asyncio.LimitOverrunError("too long", 7)),
    Row("concurrent.futures.CancelledError", concurrent.futures.CancelledError),
    Row("concurrent.futures.BrokenExecutor", lambda: concurrent.futures.BrokenExecutor("a child died")),
    Row("json.JSONDecodeError", lambda: json.loads("{")),
    Row("subprocess.CalledProcessError", _run),
    Row(
        "subprocess.TimeoutExpired",
        lambda: subprocess.TimeoutExpired(["make"], 5.0, output=b"x", stderr=b"y"),
    ),
    Row("decimal.InvalidOperation", lambda: decimal.Decimal("x"), "decimal.InvalidOperation"),
    Row("decimal.DivisionByZero", lambda: decimal.Decimal(1) / 0, "decimal.DivisionByZero"),
    Row("configparser.NoSectionError", lambda: configparser.ConfigParser().items("shop")),
    Row("configparser.MissingSectionHeaderError", lambda: configparser.ConfigParser().read_string("a=1")),
    Row("argparse.ArgumentError", lambda: argparse.ArgumentError(None, "no such option")),
    Row("getopt.GetoptError", lambda: getopt.getopt(["-x"], "y")),
    Row("re.error", lambda: re.compile("(")),
    Row("struct.error", lambda: struct.unpack("I", b"")),
    Row("csv.Error", lambda: csv.Error("line contains NUL")),
    Row("sqlite3.OperationalError", _sqlite),
    Row("zipfile.BadZipFile", lambda: zipfile.BadZipFile("File is not a zip file")),
    Row("zlib.error", lambda: zlib.decompress(b"x")),
    Row("tarfile.ReadError", lambda: tarfile.ReadError("not a gzip file")),
    Row("shutil.SameFileError", lambda: shutil.copyfile(__file__, __file__)),
    Row("tomllib.TOMLDecodeError", lambda: tomllib.TOMLDecodeError("Invalid value")),
    Row("plistlib.InvalidFileException", plistlib.InvalidFileException),
    Row("pickle.UnpicklingError", lambda: pickle.loads(b"x")),
    Row("queue.Empty", lambda: queue.Queue().get_nowait()),
    Row("statistics.StatisticsError", lambda: statistics.mean([])),
    Row("ipaddress.AddressValueError", lambda: ipaddress.IPv4Address("x")),
    Row("zoneinfo.ZoneInfoNotFoundError", lambda: zoneinfo.ZoneInfo("No/Where")),
    Row("fractions: ZeroDivisionError", lambda: fractions.Fraction(1, 0)),
    Row("uuid: ValueError", lambda: uuid.UUID("x")),
    Row("email.errors.HeaderParseError", lambda: email.errors.HeaderParseError("no header")),
    Row("xml.etree.ElementTree.ParseError", lambda: ET.fromstring("<a>")),
    Row("xml.parsers.expat.ExpatError", lambda: xml.parsers.expat.ParserCreate().Parse("<a>", True)),
    Row("http.client.IncompleteRead", lambda: http.client.IncompleteRead(b"ab", 5)),
    Row("http.client.BadStatusLine", lambda: http.client.BadStatusLine("HTTP/9")),
    Row("http.client.RemoteDisconnected", lambda: http.client.RemoteDisconnected("closed")),
    Row("urllib.error.URLError", lambda: urllib.error.URLError("unknown url type: x")),
    Row(
        "urllib.error.URLError, of an OSError",
        lambda: urllib.error.URLError(OSError(5, "x")),
        "urllib.error.URLError",
    ),
    Row(
        "urllib.error.HTTPError",
        lambda: urllib.error.HTTPError("http://shop", 404, "Not Found", None, None),
        "urllib.error.HTTPError",
    ),
]

LIBRARIES = [
    Row("pydantic.ValidationError", lambda: Model(x="no", names=[1])),
    Row("pydantic.ValidationError, of a validator", lambda: Model(x=10)),
    Row("pydantic.ValidationError, of JSON", lambda: Model.model_validate_json('{"x": "no"}')),
    Row("pydantic.ValidationError, of an object", lambda: Model(x=object()), "ValueError"),
    Row(
        "fastapi.HTTPException",
        lambda: fastapi.HTTPException(422, detail={"field": "x"}, headers={"Retry-After": "5"}),
    ),
    Row(
        "fastapi.HTTPException, by keywords", lambda: fastapi.HTTPException(status_code=HTTPStatus.NOT_FOUND)
    ),
    Row(
        "fastapi.RequestValidationError", lambda: fastapi.exceptions.RequestValidationError([{"loc": ("x",)}])
    ),
    Row("starlette.HTTPException", lambda: starlette.exceptions.HTTPException(404)),
    Row("starlette.WebSocketDisconnect", lambda: starlette.websockets.WebSocketDisconnect(1001, "bye")),
    Row("httpx.HTTPStatusError", _http_status),
    Row("httpx.ConnectTimeout", lambda: httpx.ConnectTimeout("slow")),
    Row("httpx.InvalidURL", lambda: httpx.URL("http://shop:x")),
    Row("requests.HTTPError", _requests_status),
    Row("requests.ConnectionError", lambda: requests.ConnectionError("refused")),
    Row("requests.JSONDecodeError", lambda: requests.JSONDecodeError("Expecting value", "x", 0)),
    Row("aiohttp.ClientResponseError", _aiohttp_status, "aiohttp.ClientResponseError"),
    Row("aiohttp.ServerTimeoutError", lambda: aiohttp.ServerTimeoutError("slow")),
    Row("sqlalchemy.exc.IntegrityError", lambda: _sql("insert into t values (1)")),
    Row("sqlalchemy.exc.OperationalError", lambda: _sql("select * from nowhere")),
    Row("sqlalchemy.exc.NoSuchTableError", lambda: sqlalchemy.exc.NoSuchTableError("t")),
    Row("botocore.exceptions.ClientError", lambda: _client_error("AccessDenied")),
    Row("botocore: client.exceptions.NoSuchKey", _no_such_key, "botocore.exceptions.ClientError"),
    Row("botocore.exceptions.NoCredentialsError", botocore.exceptions.NoCredentialsError),
    Row(
        "botocore.exceptions.EndpointConnectionError",
        lambda: botocore.exceptions.EndpointConnectionError(endpoint_url="http://s3"),
    ),
    Row("redis.exceptions.ResponseError", lambda: redis.exceptions.ResponseError("WRONGTYPE")),
    Row("redis.exceptions.ConnectionError", lambda: redis.exceptions.ConnectionError("closed")),
    Row(
        "django.core.exceptions.ValidationError",
        lambda: django.core.exceptions.ValidationError("bad %(x)s", code="bad", params={"x": 1}),
    ),
    Row(
        "django.core.exceptions.ObjectDoesNotExist",
        lambda: django.core.exceptions.ObjectDoesNotExist("no row"),
    ),
    Row("msgpack.ExtraData", lambda: msgpack.unpackb(b"\x01\x02")),
    Row("msgpack.FormatError", lambda: msgpack.unpackb(b"\xc1")),
    Row("click.UsageError", lambda: click.UsageError("no such option")),
    Row("click.BadParameter", lambda: click.BadParameter("not a number", param_hint="--n")),
    Row("jinja2.TemplateSyntaxError", lambda: jinja2.Template("{% if %}")),
    Row("jinja2.UndefinedError", lambda: jinja2.Template("{{ a.b }}").render()),
    Row(
        "jinja2.TemplateNotFound", lambda: jinja2.Environment(loader=jinja2.DictLoader({})).get_template("x")
    ),
    Row("yaml.scanner.ScannerError", lambda: yaml.safe_load("a: b: c"), "yaml.scanner.ScannerError"),
    Row("yaml.YAMLError", lambda: yaml.YAMLError("bad")),
]

TABLE = [*STANDARD, *LIBRARIES]
