"""Defines `TypeCodec`, the codec of one annotation, and those of plain types, containers and unions.

A codec turns the instances of annotated classes in a value into trees before `packing` encodes it, and makes
instances of the trees that `unpacking` has read. The codecs of the classes themselves are in
`dataclass_codecs` and `models`; `annotations` chooses the codec.

A codec is either strict or lenient. The fields of classes have strict codecs: both sides refuse a value of
another type, so a writer cannot forge a value that a validator would have refused. Arguments and results have
lenient codecs: plain values that they do not recognise pass, as they would in a direct call.
"""

# ruff: noqa: D102  `TypeCodec` describes dump, load and parts

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from asyncq.errors import DecodeError
from asyncq.serializers.fingerprints import base_of
from asyncq.serializers.packing import ready
from asyncq.serializers.trees import (
    CONTAINERS,
    INSTANCE,
    SCALARS,
    Bag,
    Instance,
    Pairs,
    are_scalars,
    make_dict,
    make_set,
    plain_fields,
)
from asyncq.serializers.value_paths import FIELD, KEY, MEMBER, ValuePath, check_depth, name_of, refuse, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

SEQUENCES: Final = (list, tuple)
SETS: Final = (set, frozenset)


class TypeCodec(ABC):
    """The codec of one annotation: it turns instances of the annotated classes into trees, and trees into
    instances.

    Attributes:
        text: the annotation, as an error prints it.
    """

    __slots__ = ("text",)

    text: str

    @abstractmethod
    def dump(self, value: Any, path: ValuePath) -> Any:
        """Turns the instances of annotated classes in `value` into trees.

        Raises:
            SerializationError: a value has a type that the annotation does not allow; names its path.
        """

    @abstractmethod
    def load(self, tree: Any) -> Any:
        """Turns a tree into a value with instances of the annotated classes.

        Raises:
            DecodeError: the tree does not fit the annotation.
        """

    def parts(self) -> Iterable[TypeCodec | None]:
        """Returns the codecs of what a value holds: of items, keys, arms."""
        return ()

    def refuse(self, value: Any, path: ValuePath) -> NoReturn:
        """Refuses a value on the writer's side.

        Raises:
            SerializationError: always.
        """
        refuse(path, f"a value of type {name_of(type(value))}, but the annotation says {self.text}")

    def reject(self, tree: Any) -> NoReturn:
        """Refuses a tree on the reader's side.

        Raises:
            DecodeError: always.
        """
        raise DecodeError(f"{arrived(tree)} arrived, but the annotation says {self.text}")

    def unchecked(self, tree: Any) -> Any:
        """Returns the plain values of a tree that is of another kind than the annotation says. In arguments
        and results, nobody checks such a tree.

        Raises:
            DecodeError: an instance of a class is in it. The function, which annotates classes, would get
                dicts of fields in their place.
        """
        instance = next(instances_in(tree), None)
        if instance is None:
            return bare(tree)
        if instance is tree:
            self.reject(tree)
        raise DecodeError(
            f"{arrived(tree)} with {arrived(instance)} in it arrived, but the annotation says {self.text}"
        )


def arrived(tree: Any) -> str:
    """Returns what an error calls a tree."""
    kind = type(tree)
    if kind is Instance:
        return f"an instance of {tree[1]}" if tree[2] is not None else f"a member of {tree[1]}"
    if kind is Bag:
        return f"a {tree.kind.__name__}"
    return "a dict" if kind is Pairs else f"a value of type {name_of(kind)}"


def instances_in(tree: Any) -> Iterator[Instance]:
    """Yields the instances of classes in a tree, each before those in its fields."""
    kind = type(tree)
    if kind is Instance:
        yield tree
        below: Any = (tree[3],)
    elif kind is Bag or kind is Pairs:
        below = tree.items
    elif kind is dict:
        below = tree.values()
    else:
        below = tree if kind in SEQUENCES else ()
    for item in below:
        yield from instances_in(item)


def dumped(codec: TypeCodec | None, value: Any, path: ValuePath) -> Any:
    """Returns what the codec makes of a value; without a codec, the value itself."""
    return value if codec is None else codec.dump(value, path)


def loaded(codec: TypeCodec | None, tree: Any) -> Any:
    """Returns the value that the codec makes of a tree; without a codec, its plain values."""
    return bare(tree) if codec is None else codec.load(tree)


def bare(tree: Any) -> Any:
    """Returns the plain values of a tree: what a reader without annotations gets.

    Raises:
        DecodeError: something in it cannot be a key, or a member of a set.
    """
    kind = type(tree)
    if kind is dict:
        return tree if are_scalars(map(type, tree.values())) else {key: bare(tree[key]) for key in tree}
    if kind not in CONTAINERS:
        return tree
    if kind is Instance:
        return bare(plain_fields(tree))
    if kind is Bag:
        return _bare_set(tree)
    if kind is Pairs:
        return _bare_dict(tree)
    return tree if are_scalars(map(type, tree)) else cast("Any", kind)(map(bare, tree))


# An instance may have a hash though the dict of its fields has none. So without the class, such a set becomes
# a list, and such a dict a list of pairs.
def _bare_set(tree: Bag) -> Any:
    items = [bare(item) for item in tree.items]
    try:
        return make_set(tree.kind, items)
    except DecodeError:
        if not any(map(_holds_fields, tree.items)):
            raise
        return items


def _bare_dict(tree: Pairs) -> Any:
    items = [bare(item) for item in tree.items]
    try:
        return make_dict(items[::2], items[1::2])
    except DecodeError:
        if not any(map(_holds_fields, tree.items[::2])):
            raise
        return [list(pair) for pair in zip(items[::2], items[1::2], strict=True)]


def _holds_fields(tree: Any) -> bool:
    kind = type(tree)
    return (kind is Instance and tree[2] is not None) or (kind is tuple and any(map(_holds_fields, tree)))


class PlainCodec(TypeCodec):
    """The codec of a plain type, such as `int`, or of a union of plain types. It only checks the type.

    Attributes:
        kinds: the exact types that a value may have.
    """

    __slots__ = ("kinds",)

    def __init__(self, kinds: frozenset[Any], text: str) -> None:
        self.kinds: frozenset[Any] = kinds
        self.text: str = text

    def dump(self, value: Any, path: ValuePath) -> Any:
        if type(value) not in self.kinds:
            self.refuse(value, path)
        return value

    def load(self, tree: Any) -> Any:
        if type(tree) not in self.kinds:
            self.reject(tree)
        return tree


class LiteralCodec(PlainCodec):
    """The codec of a `Literal` of plain values."""

    __slots__ = ("values",)

    def __init__(self, values: tuple[Any, ...], text: str) -> None:
        super().__init__(frozenset(map(type, values)), text)
        self.values: frozenset[Any] = frozenset((type(value), value) for value in values)

    def dump(self, value: Any, path: ValuePath) -> Any:
        if type(value) not in self.kinds or (type(value), value) not in self.values:
            self.refuse(value, path)
        return value

    def load(self, tree: Any) -> Any:
        if type(tree) not in self.kinds or (type(tree), tree) not in self.values:
            self.reject(tree)
        return tree


class ItemsCodec(TypeCodec):
    """The codec of a list, tuple, set or frozenset. A value comes back as the kind that it is.

    Args:
        item: the codec of the items; None if they need none.
        kinds: the types that the annotation allows.
        text: the annotation.
        is_strict: whether values of other types are refused.
    """

    __slots__ = ("is_strict", "item", "kinds", "plain")

    def __init__(
        self, item: TypeCodec | None, kinds: tuple[type, ...], text: str = "", *, is_strict: bool = False
    ) -> None:
        self.item: TypeCodec | None = item
        self.kinds: tuple[type, ...] = kinds
        self.text: str = text
        self.is_strict: bool = is_strict
        self.plain: frozenset[Any] | None = item.kinds if type(item) is PlainCodec else None

    def parts(self) -> Iterable[TypeCodec | None]:
        return (self.item,)

    def dump(self, value: Any, path: ValuePath) -> Any:
        kind = type(value)
        if kind not in self.kinds:
            if self.is_strict:
                self.refuse(value, path)
            if kind not in SEQUENCES and kind not in SETS:
                return value
        codec = self.item
        if codec is None or (self.plain is not None and self.plain.issuperset(map(type, value))):
            return value
        depth = check_depth(path)
        style = KEY if kind in SEQUENCES else MEMBER
        items = [codec.dump(item, (path, style, index, depth)) for index, item in enumerate(value)]
        if kind in SETS:  # not a set of trees: those of instances may have no hash
            return Bag(kind, items)
        return items if kind is list else tuple(items)

    def load(self, tree: Any) -> Any:
        kind, items = (tree.kind, tree.items) if type(tree) is Bag else (type(tree), tree)
        if kind not in self.kinds:
            if self.is_strict:
                self.reject(tree)
            if kind not in SEQUENCES and kind not in SETS:
                return self.unchecked(tree)
        codec = self.item
        if codec is None:
            return bare(tree)
        if self.plain is None or not self.plain.issuperset(map(type, items)):
            items = collected(map(codec.load, items), MEMBER.format if kind in SETS else KEY.format)
        if kind in SETS:
            return make_set(kind, items)
        return items if type(items) is kind else kind(items)


class TupleCodec(TypeCodec):
    """The codec of tuples by their length, with a codec for each item, as in `tuple[Point, int]`.

    Args:
        lengths: the codecs of the items, by the number of items.
        rest: the codec of all items of a tuple of any other length; None if no such tuple is annotated.
        text: the annotation.
        is_strict: whether any other value is refused.
    """

    __slots__ = ("is_strict", "lengths", "rest")

    def __init__(
        self,
        lengths: Mapping[int, tuple[TypeCodec | None, ...]],
        rest: tuple[TypeCodec | None] | None,
        text: str = "",
        *,
        is_strict: bool = False,
    ) -> None:
        self.lengths: Mapping[int, tuple[TypeCodec | None, ...]] = lengths
        self.rest: tuple[TypeCodec | None] | None = rest
        self.text: str = text
        self.is_strict: bool = is_strict

    def parts(self) -> Iterable[TypeCodec | None]:
        return (*(self.rest or ()), *(codec for codecs in self.lengths.values() for codec in codecs))

    def _items(self, value: Any) -> tuple[TypeCodec | None, ...] | None:
        kind = type(value)
        if kind is not tuple and (self.is_strict or kind is not list):
            return None
        codecs = self.lengths.get(len(value))
        return self.rest * len(value) if codecs is None and self.rest is not None else codecs

    def dump(self, value: Any, path: ValuePath) -> Any:
        codecs = self._items(value)
        if codecs is None:
            if self.is_strict:
                self.refuse(value, path)
            return value
        depth = check_depth(path)
        return type(value)(
            dumped(codec, item, (path, KEY, index, depth))
            for index, (codec, item) in enumerate(zip(codecs, value, strict=True))
        )

    def load(self, tree: Any) -> Any:
        codecs = self._items(tree)
        if codecs is None:
            if self.is_strict:
                self.reject(tree)
            return self.unchecked(tree)
        return type(tree)(collected(map(loaded, codecs, tree), KEY.format))


class DictCodec(TypeCodec):
    """The codec of a dict or a TypedDict.

    Args:
        text: the annotation.
        is_strict: whether a value that does not fit is refused.

    Attributes:
        key: the codec of keys that are no fields.
        value: the codec of their values.
        fields: the codecs of the values of a TypedDict, by key.
        required: the keys that the TypedDict must have.
        is_closed: whether it must have no other keys.
    """

    __slots__ = ("fields", "is_closed", "is_strict", "key", "required", "value")

    def __init__(self, text: str = "", *, is_strict: bool = False) -> None:
        self.key: TypeCodec | None = None
        self.value: TypeCodec | None = None
        self.fields: dict[str, TypeCodec | None] = {}
        self.required: frozenset[str] = frozenset()
        self.is_closed: bool = False
        self.text: str = text
        self.is_strict: bool = is_strict

    def parts(self) -> Iterable[TypeCodec | None]:
        return (self.key, self.value, *self.fields.values())

    def _wrong_keys(self, keys: Any) -> str:
        """Returns what is wrong with the keys of a dict; empty if nothing is."""
        if not self.is_strict:
            return ""
        missing = [name for name in self.required if name not in keys]
        other = [key for key in keys if key not in self.fields] if self.is_closed else []
        if missing:
            return f"without the key {shown(missing[0])}"
        return f"with the key {shown(other[0])}" if other else ""

    def _codec_at(self, key: Any) -> TypeCodec | None:
        return self.fields[key] if type(key) is str and key in self.fields else self.value

    def dump(self, value: Any, path: ValuePath) -> Any:
        if type(value) is not dict:
            if self.is_strict:
                self.refuse(value, path)
            return value
        wrong = self._wrong_keys(value)
        if wrong:
            refuse(path, f"a dict {wrong}, but the annotation says {self.text}")
        depth = check_depth(path)
        keys = [
            dumped(None if type(key) is str and key in self.fields else self.key, key, where)
            for key, where in ((key, (path, ".keys()<{}>", shown(key), depth)) for key in value)
        ]
        items = [dumped(self._codec_at(key), item, (path, KEY, key, depth)) for key, item in value.items()]
        if all(type(key) in _HASHED for key in keys):
            tree = dict(zip(keys, items, strict=True))
            if len(tree) != len(keys):
                refuse(path, "two of its keys are equal on the wire. Send a list of pairs")
            return tree
        return Pairs([half for pair in zip(keys, items, strict=True) for half in pair])

    def load(self, tree: Any) -> Any:
        kind = type(tree)
        if kind is dict:
            keys, items = list(tree), list(tree.values())
        elif kind is Pairs:
            keys, items = tree.items[::2], tree.items[1::2]
        elif self.is_strict:
            self.reject(tree)
        else:
            return self.unchecked(tree)
        read = [
            bare(key) if type(key) is str and key in self.fields else loaded(self.key, key) for key in keys
        ]
        values = collected(
            (loaded(self._codec_at(key), item) for key, item in zip(read, items, strict=True)),
            lambda index: KEY.format(shown(read[index])),
        )
        made = make_dict(read, values)
        wrong = self._wrong_keys(made)
        if wrong:
            raise DecodeError(f"a dict {wrong} arrived, but the annotation says {self.text}")
        return made


_HASHED: Final = SCALARS  # a dict with keys of other types than these becomes `Pairs`


class OptionalCodec(TypeCodec):
    """The codec of `X | None`, where X is strict."""

    __slots__ = ("inner",)

    def __init__(self, inner: TypeCodec) -> None:
        self.inner: TypeCodec = inner
        self.text: str = f"{inner.text} | None"

    def parts(self) -> Iterable[TypeCodec | None]:
        return (self.inner,)

    def dump(self, value: Any, path: ValuePath) -> Any:
        return None if value is None else self.inner.dump(value, path)

    def load(self, tree: Any) -> Any:
        return None if tree is None else self.inner.load(tree)


class ClassCodec(TypeCodec):
    """The codec of a class. As an arm of a union, it is found by the tag of the class.

    Attributes:
        cls: the class.
        tag: its name on the wire.
        origin: the generic pydantic model of which the class is made by arguments; None for other classes.
    """

    __slots__ = ("cls", "origin", "tag")

    def __init__(self, cls: Any, tag: str) -> None:
        self.cls: Any = cls
        self.tag: str = tag
        self.origin: Any = (vars(cls).get("__pydantic_generic_metadata__") or {}).get("origin")
        self.text: str = name_of(cls)

    def is_meant(self, value: Any) -> bool:
        """Returns whether a value is of the class, or its author may think so. Then the error explains it."""
        cls = type(value)
        return (
            isinstance(value, self.cls)
            or (self.origin is not None and isinstance(value, self.origin))
            or (cls.__qualname__ == self.cls.__qualname__ and cls.__module__ == self.cls.__module__)
        )

    def takes(self, tag: str) -> bool:
        """Returns whether an instance with this tag is of the class. The arguments of a generic class may
        differ.
        """
        return tag == self.tag or base_of(tag) == base_of(self.tag)

    def takes_plain(self, tree: Any) -> bool:  # noqa: ARG002  most have none
        """Returns whether an instance can be made of a plain tree, from a caller that knows only the task's
        name.
        """
        return False

    def load_plain(self, tree: Any) -> Any:
        """Returns the value of a plain tree: an instance of the class if one can be made, else as it came."""
        return self.load(tree) if self.takes_plain(tree) else self.unchecked(tree)

    def refuse(self, value: Any, path: ValuePath) -> NoReturn:
        if isinstance(value, self.cls):
            refuse(
                path,
                f"a value of type {name_of(type(value))}, but the annotation says exactly "
                f"{name_of(self.cls)}, and a subclass would come back as its base."
                f" Annotate {self.cls.__qualname__} | {type(value).__qualname__}",
            )
        if self.origin is not None and isinstance(value, self.origin):
            bare_or_not = "a bare " if type(value) is self.origin else ""
            refuse(
                path,
                f"a value of type {name_of(type(value))}, but the annotation says {self.text}. Write "
                f"{self.cls.__qualname__}(...): {bare_or_not}{type(value).__qualname__} is another class",
            )
        if self.is_meant(value):
            refuse(
                path,
                f"a value of type {name_of(type(value))}, but the annotation means another class of that "
                "name, because the class was defined again. Define the annotated code again, too, or "
                "restart",
            )
        super().refuse(value, path)

    def reject(self, tree: Any) -> NoReturn:
        if type(tree) is Instance:
            raise DecodeError(
                f"{arrived(tree)} arrived, but the annotation says {self.text}, which is called {self.tag} "
                f"on the wire. If the class was renamed, give it asyncq_alias = {shown(tree[1])}"
            )
        super().reject(tree)


_PLAIN_KINDS: Final = SCALARS | CONTAINERS


class ClassValueCodec(ClassCodec):
    """The codec of a class whose instances hold one plain value. The value travels alone, and inside of a
    union with the tag.

    Args:
        cls: the class.
        tag: its name on the wire.
        is_tagged: whether the tag is written.
    """

    __slots__ = ("is_tagged",)

    def __init__(self, cls: Any, tag: str, *, is_tagged: bool) -> None:
        super().__init__(cls, tag)
        self.is_tagged: bool = is_tagged

    def load_plain(self, tree: Any) -> Any:
        try:  # `takes_plain` would make the instance, too, so it would be made twice
            return self.load(tree)
        except DecodeError:
            return self.unchecked(tree)

    def tagged(self, tree: Any, path: ValuePath) -> Any:
        """Returns the tree of a plain value, with the tag if it is written."""
        return Instance((INSTANCE.ext, self.tag, None, ready(tree, path))) if self.is_tagged else tree

    def untagged(self, tree: Any) -> Any:
        """Returns the tree of the plain value, whether it came with a tag or not.

        Raises:
            DecodeError: it came with the tag of another class.
        """
        if type(tree) is not Instance:
            return tree
        if not self.takes(tree[1]) or tree[2] is not None:
            self.reject(tree)
        return tree[3]


class LenientCodec(TypeCodec):
    """The codec of a class in arguments and results, where a plain value may be in its place."""

    __slots__ = ("codec",)

    def __init__(self, codec: ClassCodec) -> None:
        self.codec: ClassCodec = codec
        self.text: str = codec.text

    def dump(self, value: Any, path: ValuePath) -> Any:
        codec = self.codec
        kind = type(value)
        if kind is codec.cls or (kind not in _PLAIN_KINDS and codec.is_meant(value)):
            return codec.dump(value, path)
        return value

    def load(self, tree: Any) -> Any:
        codec = self.codec
        return codec.load(tree) if type(tree) is Instance else codec.load_plain(tree)


class UnionCodec(TypeCodec):
    """The codec of a union. The tag of an instance, or the kind of a container, tells which arm a value has.

    Attributes:
        arms: the arm for each exact type of a value; None if such a value needs no codec.
        tags: the classes among the arms, by their tag.
        is_open: whether any other value may come: `Any` is one of the arms.
        other: the codec of such a value; None if it needs none.
        is_strict: whether a value that fits no arm is refused.
    """

    __slots__ = ("arms", "is_open", "is_strict", "other", "tags")

    def __init__(self, text: str, *, is_strict: bool) -> None:
        self.arms: dict[Any, TypeCodec | None] = {}
        self.tags: dict[str, ClassCodec] = {}
        self.is_open: bool = False
        self.other: AnyCodec | None = None
        self.is_strict: bool = is_strict
        self.text: str = text

    def parts(self) -> Iterable[TypeCodec | None]:
        return (*self.arms.values(), *self.tags.values(), self.other)

    def dump(self, value: Any, path: ValuePath) -> Any:
        kind = type(value)
        if kind in self.arms:
            codec = self.arms[kind]
            return value if codec is None else codec.dump(value, path)
        if self.is_open:
            return dumped(self.other, value, path)
        for arm in self.tags.values():
            if arm.is_meant(value):
                arm.refuse(value, path)
        if self.is_strict or (kind is dict and self._records(value) > 1):
            self.refuse(value, path)
        return value

    def _records(self, tree: Any) -> int:
        return sum(arm.takes_plain(tree) for arm in self.tags.values())

    def load(self, tree: Any) -> Any:
        kind = type(tree)
        if kind is Instance:
            return self._load_instance(tree)
        if kind is Bag:
            kind = tree.kind
        elif kind is Pairs:
            kind = dict
        if kind in self.arms:
            return loaded(self.arms[kind], tree)
        return self._load_plain(tree)

    def _load_instance(self, tree: Instance) -> Any:
        """Loads an instance by the arm that its tag names."""
        tag = tree[1]
        codec = self.tags.get(tag)
        if codec is None and self.other is not None and tag in self.other.classes:
            return self.other.load(tree)
        if codec is None:
            same = [arm for arm in self.tags.values() if arm.takes(tag)]
            if len(same) == 1:
                codec = same[0]
            elif self.is_open:
                return loaded(self.other, tree)
            else:
                self.reject(tree)
        return codec.load(tree)

    def _load_plain(self, tree: Any) -> Any:
        # The writer had an enum that was in no union, or knew only the task's name. The value is taken if
        # only one arm fits.
        if self.is_open:  # `Any` takes a plain value as it is: the writer may have meant just that
            return loaded(self.other, tree)
        arms = [arm for arm in self.tags.values() if arm.takes_plain(tree)]
        if len(arms) == 1:
            return arms[0].load(tree)
        if arms or self.is_strict:
            self.reject(tree)
        return self.unchecked(tree)


class AnyCodec(TypeCodec):
    """The codec of `Any`, or of no annotation, in an app with `types=`: instances of these classes may be
    anywhere in the value.

    Args:
        classes: the codecs of these classes, by class and by tag.
    """

    __slots__ = ("classes",)

    def __init__(self, classes: Mapping[Any, ClassCodec]) -> None:
        self.classes: Mapping[Any, ClassCodec] = classes
        self.text: str = "Any"

    def parts(self) -> Iterable[TypeCodec | None]:
        return self.classes.values()

    def dump(self, value: Any, path: ValuePath) -> Any:
        kind = type(value)
        if kind in SCALARS:
            return value
        if kind in self.classes:
            return self.classes[kind].dump(value, path)
        if kind is dict:
            return self._dump_dict(value, path)
        if kind not in CONTAINERS or are_scalars(map(type, value)):
            return value
        depth = check_depth(path)
        style = MEMBER if kind in SETS else KEY
        items = [self.dump(item, (path, style, index, depth)) for index, item in enumerate(value)]
        return Bag(kind, items) if kind in SETS else cast("Any", kind)(items)

    def _dump_dict(self, value: dict[Any, Any], path: ValuePath) -> Any:
        if are_scalars(map(type, value)) and are_scalars(map(type, value.values())):
            return value
        depth = check_depth(path)
        pairs = [
            (
                self.dump(key, (path, ".keys()<{}>", shown(key), depth)),
                self.dump(item, (path, KEY, key, depth)),
            )
            for key, item in value.items()
        ]
        if all(type(key) in SCALARS for key, _ in pairs):
            return dict(pairs)
        return Pairs([half for pair in pairs for half in pair])

    def load(self, tree: Any) -> Any:
        kind = type(tree)
        if kind is dict:
            return {key: self.load(item) for key, item in tree.items()}
        if kind not in CONTAINERS:
            return tree
        if kind is Instance:
            codec = self.classes.get(tree[1])
            return bare(tree) if codec is None else codec.load(tree)
        if kind is Bag or kind is Pairs:
            return self._load_hashed(tree)
        return cast("Any", kind)(collected(map(self.load, tree), KEY.format))

    def _load_hashed(self, tree: Any) -> Any:
        items = [self.load(item) for item in tree.items]
        try:
            return make_set(tree.kind, items) if type(tree) is Bag else make_dict(items[::2], items[1::2])
        except DecodeError:
            return bare(tree)  # a class in it is not in `types=` of the reader


def collected(loads: Iterable[Any], step: Callable[[int], str]) -> list[Any]:
    """Returns a list of what an iterator yields. A `DecodeError` of one value gets the path of that value.

    Args:
        loads: yields the values.
        step: returns how an error prints the step to the value with that index.
    """
    values: list[Any] = []
    try:
        # As fast as a comprehension. After an error, the length of the list is the index of the wrong value.
        values.extend(loads)
    except DecodeError as error:
        put_in_front(step(len(values)), error)
        raise
    return values


def put_in_front(step: str, error: DecodeError) -> None:
    """Puts a step in front of the path that an error names, as in `args[0][3].at: <reason>`.

    Changes the error itself. A new error for each step would be a traceback for each step in the log.
    """
    text = str(error)
    joint = "" if text.startswith((FIELD[:1], KEY[:1], MEMBER[:6])) else ": "
    error.args = (f"{step}{joint}{text}",)
