"""Writing TOML: the little that configuration files need (the standard library only reads it).

A document is tables of plain values; a list of tables becomes ``[[name]]``. A JSON string is a TOML basic string.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def dumps(document: Mapping[str, Mapping[str, Any] | list[Mapping[str, Any]]]) -> str:
    """The document as text; values of None are left out.

    Raises:
        TypeError: a value that no configuration file has.
    """
    parts: list[str] = []
    for name, content in document.items():
        for header, table in _tables(name, content):
            parts.append("\n".join([header, *_lines(table)]) + "\n")
    return "\n".join(parts)


def _tables(name: str, content: Mapping[str, Any] | list[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    if isinstance(content, Mapping):
        return [(f"[{name}]", content)]
    return [(f"[[{name}]]", one) for one in content]


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in table.items() if value is not None]


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str() | Path():
            return json.dumps(str(value), ensure_ascii=False)
        case Mapping():
            return "{ " + ", ".join(_lines(value)) + " }"
        case list() | tuple():
            return "[" + ", ".join(map(_value, value)) + "]"
    raise TypeError(f"{type(value).__name__} has no place in a configuration file")
