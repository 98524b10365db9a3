"""Translates between the names of fields and their pydantic aliases, for classes that only take aliases when
an instance is made. Nothing here imports pydantic.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def fields_by_alias(infos: Mapping[str, Any]) -> dict[str, str]:
    """Returns the name of a field for each of its aliases.

    Args:
        infos: what pydantic knows of the fields, see `infos_of`.
    """
    return {
        alias: name for name, field in infos.items() for alias in _choices(field) if isinstance(alias, str)
    }


def renamed(cls: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values that are given by field names, under the names that the class takes: aliases, if it
    takes no field names. Does not overwrite an alias that is given already.

    Raises:
        TypeError: the only alias of a field is a path, so no argument can give the field.
    """
    if _takes_names(cls):
        return dict(given)
    parameters = inspect.signature(cls.__init__).parameters if _has_own_init(cls) else {}
    infos = infos_of(cls)
    made: dict[str, Any] = {}
    for name, value in given.items():
        alias = _alias(infos[name], name) if name in infos and name not in parameters else name
        if alias == name or alias not in given:
            made[alias] = value
    return made


def infos_of(cls: Any) -> Mapping[str, Any]:
    """Returns what pydantic knows of the fields of a class; nothing if it does not make the instances."""
    # A plain dataclass may derive from one of pydantic. It inherits the fields but not the constructor.
    owner = next(base for base in cls.__mro__ if "__init__" in vars(base))
    infos: Mapping[str, Any] | None = getattr(cls, "__pydantic_fields__", None)
    if infos is None:  # pydantic 2.9
        return getattr(cls, "model_fields", {})
    return infos if hasattr(cls, "model_fields") or "__pydantic_fields__" in vars(owner) else {}


def _takes_names(cls: Any) -> bool:
    config = getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", None)
    options = config if isinstance(config, dict) else {}
    return bool(options.get("populate_by_name") or options.get("validate_by_name"))


def _has_own_init(cls: Any) -> bool:
    return bool(getattr(cls, "__pydantic_custom_init__", False))


def _choices(field: Any) -> list[Any]:
    alias = field.validation_alias
    choices: list[Any] = getattr(alias, "choices", [alias])
    return [choice for choice in choices if choice is not None]


def _alias(field: Any, name: str) -> str:
    """Returns the name under which the class takes a field: its alias or its name. Raises as `renamed`."""
    choices = _choices(field)
    texts = [choice for choice in choices if isinstance(choice, str)]
    if choices and not texts:
        raise TypeError(f"its field {name} has only a path as alias: set populate_by_name=True in its config")
    return texts[0] if texts else name
