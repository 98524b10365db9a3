"""Reads and sets the attributes of an instance that are not fields of its class, in `__dict__` and in slots.
The codecs of classes use it. Runs no property, and no `__setattr__` of the class.
"""

from __future__ import annotations

import inspect
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any

from asyncq.errors import DecodeError, SerializationError
from asyncq.serializers.packing import ready
from asyncq.serializers.type_codecs import TypeCodec, dumped, loaded
from asyncq.serializers.value_paths import FIELD, ValuePath, name_of, refuse, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping


class Attributes:
    """The attributes that instances of a class may have besides its fields.

    Args:
        cls: the class.
        fields: the names of its fields.
        codec: of each attribute; None if they are plain data.

    Attributes:
        has_dict: whether instances have a `__dict__`.
        slots: the slots that are no fields, by their names.
    """

    __slots__ = ("_cls", "_codec", "_fields", "has_dict", "slots")

    def __init__(self, cls: Any, fields: Collection[str], codec: TypeCodec | None) -> None:
        self._cls = cls
        self._fields = frozenset(fields)
        self._codec = codec
        self.has_dict: bool = cls.__dictoffset__ != 0
        self.slots: Mapping[str, MemberDescriptorType] = {
            name: slot for name, slot in slots_of(cls).items() if name not in self._fields
        }

    def of(self, value: Any) -> dict[str, Any]:
        """Returns the attributes of an instance, by their names."""
        return {name: item for name, item, _ in self._held(value)}

    def _held(self, value: Any) -> Iterator[tuple[str, Any, bool]]:
        """Yields the attributes of an instance: name, value, and whether it hides a method of the class."""
        if self.has_dict:
            for name, item in value.__dict__.items():
                if name in self._fields or name.startswith("__"):
                    continue
                there = inspect.getattr_static(self._cls, name, None)
                if callable(there) or not hasattr(there, "__get__"):
                    yield name, item, callable(there)
        for name, slot in self.slots.items():
            try:
                yield name, slot.__get__(value), False
            except AttributeError:  # an empty slot
                continue

    def dump(self, value: Any, path: ValuePath, depth: int) -> dict[str, Any]:
        """Returns the tree of those attributes of an instance that can travel. The others are left out: they
        are cached values, locks and the like.

        Raises:
            SerializationError: an attribute hides a method of the class; names its path.
        """
        tree = {}
        for name, item, hides_method in self._held(value):
            inner_path = (path, FIELD, name, depth)
            try:
                tree[name] = ready(dumped(self._codec, item, inner_path), inner_path)
            except SerializationError:
                continue
            if hides_method:
                refuse(
                    inner_path,
                    "it hides a method of the class, and the receiver would find the method. Rename it",
                )
        return tree

    def give(self, made: Any, tree: Any, *, is_same: bool) -> None:
        """Sets the attributes that came on an instance.

        Args:
            made: the instance.
            tree: what came.
            is_same: whether the writer's class has the same fields. If not, an attribute is left out when the
                reader's class has something else under that name.

        Raises:
            DecodeError: the class cannot have one of the attributes.
        """
        if type(tree) is not dict:
            raise DecodeError(f"{name_of(self._cls)} arrived with attributes that have no names")
        for name, item in tree.items():
            # Not by `__setattr__`: that of a frozen class refuses.
            if name in self.slots:
                self.slots[name].__set__(made, loaded(self._codec, item))
            elif self.has_dict and type(name) is str and self._is_free(name):
                made.__dict__[name] = loaded(self._codec, item)
            elif is_same:
                raise DecodeError(
                    f"{name_of(self._cls)} arrived with an attribute {shown(name)} that it cannot have"
                )

    def _is_free(self, name: str) -> bool:
        """Returns whether an attribute of this name may be set in the `__dict__` of an instance."""
        if name in self._fields or name.startswith("__"):
            return False
        there = inspect.getattr_static(self._cls, name, None)
        return not (callable(there) or hasattr(there, "__get__"))


def slots_of(cls: Any) -> dict[str, MemberDescriptorType]:
    """Returns the slots of the instances of a class by their names, without those of Python itself."""
    slots: dict[str, MemberDescriptorType] = {}
    for base in cls.__mro__:
        if "__slots__" in vars(base):
            for name, found in vars(base).items():
                if type(found) is MemberDescriptorType and not name.startswith("__"):
                    slots.setdefault(name, found)
    return slots
