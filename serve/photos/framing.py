"""Messages on a socket between the service and a process that looks at photos: a head in JSON and a body of bytes."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterable, Mapping
from typing import Any

_LENGTHS = struct.Struct("!IQ")
HEADER = _LENGTHS.size
"""Bytes of the two lengths that every message begins with."""
_MOST_HEAD, _MOST_BODY = 16 << 20, 1 << 30


class Broken(Exception):
    """The other end is gone, or does not speak this language."""


def pack(head: Mapping[str, Any], bodies: Iterable[bytes] = ()) -> list[bytes]:
    """The pieces to send, in their order: photos are not copied to be put behind their heads."""
    text = json.dumps(head, separators=(",", ":")).encode()
    pieces = list(bodies)
    return [_LENGTHS.pack(len(text), sum(map(len, pieces))) + text, *pieces]


def lengths(data: bytes | bytearray) -> tuple[int, int]:
    """(of the head, of the body). Raises: Broken for lengths that nobody sends."""
    head, body = _LENGTHS.unpack(data)
    if head > _MOST_HEAD or body > _MOST_BODY:
        raise Broken(f"a message of {head} and {body} bytes")
    return head, body


def parse(text: bytes) -> dict[str, Any]:
    """Raises: Broken."""
    try:
        head = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Broken("a head that is no JSON") from error
    if not isinstance(head, dict):
        raise Broken("a head that is no object")
    return head


def send(connection: socket.socket, head: Mapping[str, Any], bodies: Iterable[bytes] = ()) -> None:
    """Blocks until it is sent."""
    connection.sendall(b"".join(pack(head, bodies)))


def receive(connection: socket.socket) -> tuple[dict[str, Any], bytes] | None:
    """Blocks for the next message; None when the other end is gone."""
    if (start := _read(connection, HEADER)) is None:
        return None
    head, body = lengths(start)
    whole = _read(connection, head + body)
    return None if whole is None else (parse(whole[:head]), whole[head:])


def _read(connection: socket.socket, num: int) -> bytes | None:
    data = bytearray(num)
    view, done = memoryview(data), 0
    while done < num:
        if not (got := connection.recv_into(view[done:])):
            return None
        done += got
    return bytes(data)
