"""A group of changes as the bytes of one object: JSON, in which bytes are base64."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from retrieval.live.log.operations import Operation

FORMAT = 1
_BYTES = "base64"


@dataclass(frozen=True, slots=True)
class Group:
    """token: of the write, so that a writer knows its own. operations: in the order that they are done."""

    token: str
    operations: list[Operation]


def encode(group: Group) -> bytes:
    """Inverse of `decode`."""
    said = {"format": FORMAT, "token": group.token, "operations": [asdict(one) for one in group.operations]}
    return json.dumps(said, default=_said, allow_nan=False).encode()


def decode(data: bytes) -> Group:
    """Raises: ValueError for bytes that `encode` did not write, or another release did."""
    try:
        said = json.loads(data, object_hook=_meant)
        found, operations = said["format"], said["operations"]
        group = Group(said["token"], [Operation(one["kind"], one["told"]) for one in operations])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"An object of the log cannot be read ({error}). It was damaged.") from error
    if found != FORMAT:
        raise ValueError(f"An object of the log is of format {found}, expected {FORMAT}: another release wrote it.")
    return group


def size_of(operations: Sequence[Operation]) -> int:
    """Bytes that they take in an object, about."""
    return sum(_size(one.told) for one in operations)


def _size(value: Any) -> int:
    if isinstance(value, bytes):
        return len(value) * 4 // 3
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list | tuple) else 16


def _said(value: Any) -> Any:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} is nothing that a change is made of.")
    return {_BYTES: base64.b64encode(value).decode()}


def _meant(found: dict[str, Any]) -> Any:
    return base64.b64decode(found[_BYTES]) if found.keys() == {_BYTES} else found
