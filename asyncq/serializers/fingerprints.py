"""Computes the tag and the fingerprint of a class, by which a reader knows whether the writer has the same
class. Pure functions.

The **tag** is the short name of a class. The **fingerprint** is a hash over the names and types of its
fields, and of the fields of every class that they name. Each type has one text, however it is spelled
(`Optional[X]`, `X | None` and `Union[None, X]`; `List` and `list`; without `Annotated`), so the fingerprint
is equal on all versions of Python. Defaults and constraints are not part of it.
"""

from __future__ import annotations

import hashlib
import typing
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal

from asyncq.serializers.hint_forms import is_alias, is_union, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable

    # Returns the fields of a class with their types; None if the class has no fields.
    FieldsOf = Callable[[Any, tuple[Any, ...]], dict[str, Any] | None]

_SIZE: Final = 6
_MOST_CLASSES: Final = 200
"""After so many classes, no further one counts."""
_DEEPEST_ARGUMENTS: Final = 8  # a generic class can name itself with ever deeper arguments


def tag_of(cls: Any, args: tuple[Any, ...] = ()) -> str:
    """Returns the short name of a class on the wire: its `asyncq_alias` if it has one, else its name.

    Args:
        cls: the class. An alias counts only for the class that sets it, not for derived classes.
        args: the arguments of a generic class.
    """
    alias = vars(cls).get("asyncq_alias")
    name = alias if type(alias) is str else cls.__name__
    generic = vars(cls).get("__pydantic_generic_metadata__")
    if generic and generic["origin"] is not None and type(alias) is not str:
        name, args = tag_of(generic["origin"]), generic["args"]
    return f"{name}[{', '.join(type_text(arg) for arg in args)}]" if args else name


def base_of(tag: str) -> str:
    """Returns the tag without the arguments of a generic class."""
    return tag.partition("[")[0]


def fingerprint(cls: Any, args: tuple[Any, ...], fields_of: FieldsOf) -> bytes:
    """Returns six bytes of a hash over the fields of a class and of the classes that they name.

    Args:
        cls: the class.
        args: the arguments of a generic class.
        fields_of: returns the fields of a class with their types; None if the class has no fields.
    """
    # The text has each class once, and names the classes of its fields by their tags. So a class may name
    # itself, and of two classes that name each other the texts are the same, whichever comes first.
    seen: dict[Any, str] = {}
    waiting: list[tuple[Any, tuple[Any, ...]]] = [(cls, args)]
    while waiting and len(seen) < _MOST_CLASSES:
        one, its_args = waiting.pop()
        key = (one, str(its_args))
        if key in seen or key[1].count("[") > _DEEPEST_ARGUMENTS:
            continue
        fields = fields_of(one, its_args) or {}
        lines = [f"{name}:{type_text(hint, waiting, fields_of)}" for name, hint in fields.items()]
        if not (isinstance(one, type) and issubclass(one, tuple)):  # the items of a NamedTuple have no names
            lines.sort()
        seen[key] = f"{tag_of(one, its_args)}({','.join(lines)})"
    texts = "\n".join([tag_of(cls, args), *sorted(set(seen.values()))])
    return hashlib.blake2b(texts.encode("utf-8", "surrogatepass"), digest_size=_SIZE).digest()


def type_text(
    hint: Any,
    classes: list[tuple[Any, tuple[Any, ...]]] | None = None,
    fields_of: FieldsOf | None = None,
    aliases: tuple[Any, ...] = (),
) -> str:
    """Returns the text of a type for a fingerprint.

    Args:
        hint: the type.
        classes: a list to which the classes with fields that the type names are appended.
        fields_of: as of `fingerprint`.
        aliases: the type aliases inside of which the type is.
    """
    if is_alias(hint) or is_alias(typing.get_origin(hint)):
        if hint in aliases or len(aliases) > 20:  # one may name itself with ever longer arguments
            return str(typing.get_origin(hint) or hint.__name__)
        aliases = (*aliases, hint)
    hint = unwrapped(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return f"Literal[{', '.join(sorted(map(_literal_text, args)))}]"
    texts = [
        "..." if arg is Ellipsis else type_text(arg, classes, fields_of, aliases)
        for arg in args
        if not isinstance(arg, list)
    ]
    if is_union(hint):
        return "|".join(sorted({part for text in texts for part in _arms(text)}))
    cls = hint if origin is None else origin
    if not isinstance(cls, type):
        return str(getattr(cls, "__name__", cls))
    if cls is type(None):
        return "None"
    if classes is not None and fields_of is not None and fields_of(cls, args) is not None:
        classes.append((cls, args))
    name = tag_of(cls)
    return f"{name}[{', '.join(texts)}]" if texts else name


def _arms(text: str) -> list[str]:
    """Splits the text of a union into its arms. Does not split a union inside brackets."""
    arms, depth = [""], 0
    for sign in text:
        depth += (sign == "[") - (sign == "]")
        if sign == "|" and not depth:
            arms.append("")
        else:
            arms[-1] += sign
    return arms


def _literal_text(value: Any) -> str:
    return f"{type(value).__name__}.{value.name}" if isinstance(value, Enum) else repr(value)
