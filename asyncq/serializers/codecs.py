"""The codecs of a task: `ArgumentCodec` encodes and decodes its arguments, `ValueCodec` its result or items.

They are the face of this package. A codec resolves the annotations of the task's function at first use, and
may be used by several threads at once.
"""

from __future__ import annotations

import inspect
import typing
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgpack import Packer

from asyncq.errors import DecodeError, SerializationError
from asyncq.serializers.annotations import Compiler, UnclearAnnotation, has_union_of_classes, unpacked
from asyncq.serializers.hints import hints_of, shown_parameter
from asyncq.serializers.packing import dumps, is_native, pack, to_tree
from asyncq.serializers.policy import DEFAULT
from asyncq.serializers.trees import are_strings
from asyncq.serializers.type_codecs import (
    SEQUENCES,
    ItemsCodec,
    TypeCodec,
    bare,
    collected,
    dumped,
    loaded,
    put_in_front,
)
from asyncq.serializers.unpacking import unpack
from asyncq.serializers.value_paths import KEY, MAX_DEPTH, check_depth, shown, top
from asyncq.wire import packed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asyncq.serializers.policy import Policy
    from asyncq.serializers.value_paths import ValuePath

_ALL: Final = top("arguments")
_ARGS: Final = top("args")
_KWARGS: Final = top("kwargs")


_ARGUMENT: Final = "args[{}]".format


class _Parameters(NamedTuple):
    """The codecs of a function's parameters: by position, for `*args`, by name, and for `**kwargs`."""

    positional: tuple[TypeCodec | None, ...]
    rest: TypeCodec | None
    named: dict[str, TypeCodec]
    others: TypeCodec | None

    def at(self, index: int) -> TypeCodec | None:
        return self.positional[index] if index < len(self.positional) else self.rest

    def of(self, name: str) -> TypeCodec | None:
        return self.named.get(name, self.others)

    def dump(
        self, args: tuple[Any, ...] | list[Any], kwargs: dict[str, Any], skip: int
    ) -> tuple[list[Any], dict[str, Any]]:
        return (
            [
                dumped(self.at(index + skip), value, (_ARGS, KEY, index, 0))
                for index, value in enumerate(args)
            ],
            {name: dumped(self.of(name), value, (_KWARGS, KEY, name, 0)) for name, value in kwargs.items()},
        )

    def load(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        return (
            collected(map(loaded, map(self.at, range(len(args))), args), _ARGUMENT),
            self._load_named(kwargs) if kwargs else {},
        )

    def _load_named(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        names = list(kwargs)
        codecs = map(self.of, names)
        values = collected(map(loaded, codecs, kwargs.values()), lambda at: f"kwargs[{shown(names[at])}]")
        return dict(zip(names, values, strict=True))


def _parameters_of(function: Callable[..., Any], policy: Policy) -> _Parameters | None:
    """Compiles the annotations of a function; returns None if none of them needs a codec."""
    hints = hints_of(function)
    compiler = Compiler(policy)
    positional: list[TypeCodec | None] = []
    named: dict[str, TypeCodec] = {}
    rest = others = None
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints.get(name, Any)
        try:
            if parameter.kind is parameter.VAR_POSITIONAL:
                rest = compiler.lenient(_item_of(hint))
                continue
            if parameter.kind is parameter.VAR_KEYWORD:
                fields = unpacked(hint)
                for field, of_field in ({} if fields is None else hints_of(fields)).items():
                    _put(named, field, compiler.lenient(of_field))
                others = compiler.lenient(hint) if fields is None else None
                continue
            codec = compiler.lenient(hint)
        except UnclearAnnotation as error:
            raise UnclearAnnotation(
                f"the annotation of {shown_parameter(function, name)}: {error}"
            ) from error
        if parameter.kind is not parameter.KEYWORD_ONLY:
            positional.append(codec)
        if parameter.kind is not parameter.POSITIONAL_ONLY:
            _put(named, name, codec)
    if not (rest or others or named or any(positional)):
        return None
    return _Parameters(tuple(positional), rest, named, others)


def check_unions(function: Callable[..., Any], hints: Mapping[str, Any], policy: Policy = DEFAULT) -> None:
    """Refuses a function whose annotations have a union of classes that cannot be told apart.

    Checks only the annotations themselves, for every program pays for it with each task at its start. Unions
    in the fields of classes are checked when the annotations are resolved.

    Args:
        function: of the task.
        hints: its annotations, as far as they are resolved.
        policy: of the app.

    Raises:
        UnclearAnnotation: there is one; the message says which, and how to write it.
    """
    for name, hint in hints.items():
        if not isinstance(hint, type) and has_union_of_classes(hint):
            try:
                Compiler(policy).lenient(hint)
            except UnclearAnnotation as error:
                raise UnclearAnnotation(
                    f"the annotation of {shown_parameter(function, name)}: {error}"
                ) from error


def _put(named: dict[str, TypeCodec], name: str, codec: TypeCodec | None) -> None:
    if codec is not None:
        named[name] = codec


def _item_of(hint: Any) -> Any:
    """Returns the type of each of `*args`. For `*args: *tuple[A, B]` it is the union, one type for all."""
    inner = unpacked(hint)
    if inner is None:
        return hint
    items = tuple(arg for arg in typing.get_args(inner) if arg is not Ellipsis)
    return typing.Union[items] if items else Any  # noqa: UP007  built at run time


class ArgumentCodec:
    """Encodes the arguments of a task, and decodes them by the annotations of its function.

    The annotations are resolved at first use, so they may name what is defined later. An annotation that is
    not understood adds nothing.

    If a plain dict (or tuple) of fields arrives for a parameter with a dataclass, model or NamedTuple, the
    function gets an instance of that class: a caller that knows only the task's name sends plain values.
    Other plain values pass as they are.

    Args:
        function: of the task; None for a task of which only the name is known.
        policy: of the app.

    Example:
        >>> codec = ArgumentCodec(None)
        >>> codec.loads(codec.dumps((1, 2), {"by": 3}))
        ([1, 2], {'by': 3})
    """

    __slots__ = ("_function", "_parameters", "_policy")

    def __init__(self, function: Callable[..., Any] | None, policy: Policy = DEFAULT) -> None:
        self._function = function
        self._policy = policy
        self._parameters: _Parameters | None = None

    def dumps(self, args: tuple[Any, ...] | list[Any], kwargs: dict[str, Any], skip: int = 0) -> bytes:
        """Encodes positional and keyword arguments.

        Args:
            args: the positional arguments.
            kwargs: the keyword arguments.
            skip: how many more positional arguments `in_front` will put before them.

        Raises:
            SerializationError: something cannot travel; the message says where, as in
                `kwargs['items'][3].at`.
        """
        function = self._function
        if function is not None:
            self._resolve_to_write(function)
        if self._parameters is not None:
            args, kwargs = self._parameters.dump(args, kwargs, skip)
        if is_native(args, MAX_DEPTH) and (
            not kwargs or (are_strings(map(type, kwargs)) and is_native(kwargs.values(), MAX_DEPTH))
        ):
            try:
                return packed((args, kwargs))
            except (OverflowError, ValueError):
                pass  # an int beyond 64 bits, which `to_tree` encodes, or a lone surrogate, which it refuses
        for name in kwargs:
            if type(name) is not str:
                raise SerializationError(f"kwargs: the name {shown(name)} of an argument is not a str")
        tree = (
            [to_tree(value, (_ARGS, KEY, index, 0)) for index, value in enumerate(args)],
            {
                to_tree(name, _KWARGS): to_tree(value, (_KWARGS, KEY, name, 0))
                for name, value in kwargs.items()
            },
        )
        return pack(tree, _ALL)

    def loads(self, data: bytes) -> tuple[list[Any], dict[str, Any]]:
        """Decodes positional and keyword arguments, ready for `function(*args, **kwargs)`.

        Raises:
            DecodeError: `data` is not encoded arguments, or a dict does not fit the annotated class.
        """
        function = self._function
        if function is not None:
            self._resolve_to_read(function)
        codecs = self._parameters
        tree = unpack(data, typed=codecs is not None, limit=MAX_DEPTH + 2)  # the pair and its two halves
        if type(tree) is not list or len(tree) != 2:
            raise DecodeError("not the arguments of a call")
        args, kwargs = tree
        if type(args) is not list or type(kwargs) is not dict or not are_strings(map(type, kwargs)):
            raise DecodeError("not the arguments of a call")
        if codecs is not None:
            args, kwargs = codecs.load(args, kwargs)
        return args, kwargs

    def resolve(self) -> None:
        """Resolves the annotations now, and not at first use. A second call does nothing.

        Raises:
            TypeError: an annotation uses a name that is defined nowhere, or a union whose arms cannot be told
                apart.
        """
        if self._function is not None:
            self._resolve(self._function)

    def of_calls(self) -> ArgumentCodec:
        """Returns the codec of the batch task: its one argument is a list of argument lists of this codec."""
        codec = ArgumentCodec(None)
        codec._parameters = _Parameters((_CallsCodec(self),), None, {}, None)
        return codec

    def _resolve(self, function: Callable[..., Any]) -> None:
        self._parameters = _parameters_of(function, self._policy)
        # Last: another thread that sees `_function` as None takes the annotations as resolved, so the codecs
        # must be there before.
        self._function = None

    def _resolve_to_write(self, function: Callable[..., Any]) -> None:
        try:
            self._resolve(function)
        except UnclearAnnotation as error:
            raise SerializationError(str(error)) from error

    def _resolve_to_read(self, function: Callable[..., Any]) -> None:
        try:
            self._resolve(function)
        except UnclearAnnotation as error:
            raise DecodeError(str(error)) from error


class _CallsCodec(TypeCodec):
    """A list of calls, each the list of its positional arguments."""

    __slots__ = ("codec",)

    def __init__(self, codec: ArgumentCodec) -> None:
        self.codec: ArgumentCodec = codec
        self.text: str = "list[list]"

    def _parameters(self) -> _Parameters | None:
        function = self.codec._function
        if function is not None:
            self.codec._resolve_to_write(function)
        return self.codec._parameters

    def dump(self, value: Any, path: ValuePath) -> Any:
        parameters = self._parameters()
        if parameters is None:
            return value
        outer = check_depth(path)
        calls = [(args, (path, KEY, index, outer)) for index, args in enumerate(value)]
        return [
            [
                dumped(parameters.at(index), item, (above, KEY, index, check_depth(above)))
                for index, item in enumerate(args)
            ]
            for args, above in calls
        ]

    def load(self, tree: Any) -> Any:
        parameters = self._parameters()
        if parameters is None or type(tree) not in SEQUENCES:
            return bare(tree)
        return collected((_call(parameters, args) for args in tree), KEY.format)


def _call(parameters: _Parameters, args: Any) -> Any:
    """Decodes the arguments of one of many calls."""
    if type(args) not in SEQUENCES:
        return bare(args)
    return collected(map(loaded, map(parameters.at, range(len(args))), args), KEY.format)


def in_front(body: bytes, values: Sequence[bytes]) -> bytes:
    """Puts positional arguments before those in encoded arguments, without decoding anything.

    Args:
        body: encoded arguments.
        values: the arguments to put before them, each encoded already.

    Raises:
        DecodeError: `body` is not encoded arguments.

    Example:
        >>> codec = ArgumentCodec(None)
        >>> codec.loads(in_front(codec.dumps((2,), {}), [dumps(1)]))
        ([1, 2], {})
    """
    # An array of two, the array of positional arguments first
    # (https://github.com/msgpack/msgpack/blob/master/spec.md).
    head = body[1:2]
    if body[:1] != b"\x92" or not head:
        raise DecodeError("not the arguments of a call")
    kind = head[0]
    width = {0xDC: 2, 0xDD: 4}.get(kind, 0)
    if not width and kind & 0xF0 != 0x90:
        raise DecodeError("not the arguments of a call")
    count = int.from_bytes(body[2 : 2 + width]) if width else kind & 0x0F
    return b"".join((b"\x92", _array_head(count + len(values)), *values, body[2 + width :]))


def in_list(values: Sequence[bytes]) -> bytes:
    """Makes one encoded list of encoded values."""
    return _array_head(len(values)) + b"".join(values)


def _array_head(length: int) -> bytes:
    return Packer().pack_array_header(length)  # type: ignore[no-any-return]


class ValueCodec:
    """Encodes one value, and decodes it by an annotation.

    Args:
        annotation: a resolved annotation; None, `Any` or a built-in type for the plain codec.
        policy: of the app.

    Example:
        >>> codec = ValueCodec(tuple[int, int])
        >>> codec.loads(codec.dumps((1, 2)))
        (1, 2)
    """

    __slots__ = ("_codec", "_function", "_of_items", "_policy")

    def __init__(self, annotation: Any = Any, policy: Policy = DEFAULT) -> None:
        self._of_items = False
        self._function: Callable[..., Any] | None = None
        self._policy = policy
        self._codec = Compiler(policy).lenient(Any if annotation is None else annotation)

    @classmethod
    def of_result(cls, function: Callable[..., Any], policy: Policy = DEFAULT) -> ValueCodec:
        """Makes the codec of what `function` returns. The annotation is resolved at first use."""
        codec = cls.__new__(cls)
        codec._of_items = False
        codec._function = function
        codec._policy = policy
        codec._codec = None
        return codec

    @classmethod
    def of_items(cls, function: Callable[..., Any], policy: Policy = DEFAULT) -> ValueCodec:
        """Makes the codec of what a generator function yields, by `-> AsyncIterator[Item]` and the like."""
        codec = cls.of_result(function, policy)
        codec._of_items = True
        return codec

    def dumps(self, value: Any, path: str = "result") -> bytes:
        """Encodes the value.

        Args:
            value: the value.
            path: what errors call the whole value.

        Raises:
            SerializationError: something in it cannot travel; the message says where, beginning with `path`.
        """
        function = self._function
        if function is not None:
            try:
                self._resolve(function)
            except UnclearAnnotation as error:
                raise SerializationError(str(error)) from error
        if self._codec is not None:
            value = self._codec.dump(value, top(path))
        return dumps(value, path=path)

    def loads(self, data: bytes) -> Any:
        """Decodes the value.

        Raises:
            DecodeError: `data` is not an encoded value, or a dict does not fit the annotated class.
        """
        function = self._function
        if function is not None:
            try:
                self._resolve(function)
            except UnclearAnnotation as error:
                raise DecodeError(str(error)) from error
        if self._codec is None:
            return unpack(data)
        tree = unpack(data, typed=True)
        try:
            return self._codec.load(tree)
        except DecodeError as error:
            put_in_front("item" if self._of_items else "result", error)
            raise

    def resolve(self) -> None:
        """Resolves the annotation now, and not at first use. A second call does nothing.

        Raises:
            TypeError: as `ArgumentCodec.resolve`.
        """
        if self._function is not None:
            self._resolve(self._function)

    def of_list(self) -> ValueCodec:
        """Returns the codec of a list of such values."""
        return _ListCodec(self)

    def _resolve(self, function: Callable[..., Any]) -> None:
        annotation = hints_of(function).get("return", Any)
        if self._of_items:
            annotation = next(iter(typing.get_args(annotation)), Any)
        try:
            self._codec = Compiler(self._policy).lenient(annotation)
        except UnclearAnnotation as error:
            raise UnclearAnnotation(
                f"the annotation of {shown_parameter(function, 'return')}: {error}"
            ) from error
        self._function = None  # last, as in `ArgumentCodec`


class _ListCodec(ValueCodec):
    """The codec of a list of values of one kind."""

    __slots__ = ("_item",)

    def __init__(self, item: ValueCodec) -> None:
        super().__init__()
        self._item = item
        self._function = item._function or _resolved
        if item._function is None:
            self._resolve(_resolved)

    def _resolve(self, function: Callable[..., Any]) -> None:
        if self._item._function is not None:
            self._item._resolve(function)
        codec = self._item._codec
        self._codec = None if codec is None else ItemsCodec(codec, (list,))
        self._function = None


def _resolved() -> None:
    """Stands in the place of a function whose annotations have been resolved."""


PLAIN_ARGUMENTS: Final = ArgumentCodec(None)
"""The codec of the arguments of a task of which only the name is known."""

PLAIN_VALUE: Final = ValueCodec()
"""The codec of a value without an annotation."""


class PackedArgument(ArgumentCodec):
    """The codec of a function that gets its one argument encoded, as bytes."""

    def __init__(self) -> None:
        super().__init__(None)

    def loads(self, data: bytes) -> tuple[list[Any], dict[str, Any]]:
        """Returns `([encoded argument], {})`.

        Raises:
            DecodeError: `data` is not the arguments of a call with one argument.
        """
        # An array of two: an array with the one argument, and an empty map.
        if data[:2] != b"\x92\x91" or data[-1:] != b"\x80":
            raise DecodeError("not one argument")
        return [data[2:-1]], {}


class PackedValue(ValueCodec):
    """The codec of a result that is encoded already."""

    def dumps(self, value: Any, path: str = "result") -> bytes:  # noqa: ARG002  nothing in it can be wrong
        """Returns `value`, which is bytes."""
        packed: bytes = value
        return packed
