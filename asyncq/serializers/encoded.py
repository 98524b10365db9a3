"""Encodes fields whose pydantic type decodes what it is given, such as `Json[...]` and `Base64Str`. An
instance holds the decoded value, and validation takes the encoded one. Nothing here imports pydantic.
"""

from __future__ import annotations

import sys
import typing
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

from asyncq.serializers.hint_forms import is_union

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAMES: Final = frozenset({"Json", "EncodedStr", "EncodedBytes"})


def encoders_of(infos: Mapping[str, Any]) -> dict[str, Callable[[Any], Any]]:
    """Returns a function for each field that validation decodes: it makes of the field's value what
    validation takes.

    Args:
        infos: what pydantic knows of the fields of a class.
    """
    found = {name: _encoder(field.annotation, field.metadata) for name, field in infos.items()}
    return {name: encoder for name, encoder in found.items() if encoder is not None}


def _encoder(hint: Any, metadata: Any) -> Callable[[Any], Any] | None:
    """Returns the encoder of a field; None if it needs none, and `_refuse` if it holds decoded values deeper
    inside.
    """
    markers = [marker for marker in metadata if _is_marker(marker)]
    if typing.get_origin(hint) is typing.Annotated:
        inner, *more = typing.get_args(hint)
        return _encoder(inner, [*more, *metadata])
    if is_union(hint) and not markers:
        arms = [arm for arm in typing.get_args(hint) if arm is not NoneType]
        if len(arms) == 1:
            inside = _encoder(arms[0], ())
            return inside and _optional(inside)
    if _is_marker(hint):
        markers.append(hint)
    if len(markers) == 1 and not any(map(_holds_marker, typing.get_args(hint))):
        return _encoder_of(markers[0])
    return _refuse if markers or _holds_marker(hint) else None


def _is_marker(marker: Any) -> bool:
    cls = marker if isinstance(marker, type) else type(marker)
    return any(base.__module__ == "pydantic.types" and base.__name__ in _NAMES for base in cls.__mro__)


def _holds_marker(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Annotated and any(map(_is_marker, hint.__metadata__)):
        return True
    return _is_marker(hint) or any(map(_holds_marker, typing.get_args(hint)))


def _optional(encoder: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else encoder(value)


def _encoder_of(marker: Any) -> Callable[[Any], Any]:
    encoder: Callable[[Any], Any] | None = getattr(marker, "encode_str", None) or getattr(
        marker, "encode", None
    )
    return encoder or _json


def _json(value: Any) -> Any:
    return sys.modules["pydantic_core"].to_json(value)


def _refuse(value: Any) -> Any:
    if not value:  # an empty container holds nothing that was decoded
        return value
    raise TypeError(
        f"a value of type {type(value).__name__} was decoded when the instance was made (Json, Base64Str), "
        f"and validation would decode it once more: let both sides have equal fields, or annotate the field "
        f"with what it holds"
    )
