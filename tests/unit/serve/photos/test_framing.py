"""Messages on a socket: whole, in order, and no end is left waiting for the other."""

from __future__ import annotations

import socket
import threading

import pytest

from serve.photos.framing import Broken, lengths, pack, parse, receive, send


def test_messages_come_whole_and_in_order() -> None:
    ours, theirs = socket.socketpair()
    big = bytes(range(256)) * 20_000
    sender = threading.Thread(target=lambda: [send(ours, {"n": n}, [big, b"end"]) for n in range(3)])
    sender.start()
    assert [receive(theirs) for _ in range(3)] == [({"n": n}, big + b"end") for n in range(3)]
    sender.join()
    ours.close()
    assert receive(theirs) is None
    theirs.close()


def test_half_a_message_is_none() -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(b"".join(pack({"a": 1}, [b"body"]))[:-1])
    ours.close()
    assert receive(theirs) is None
    theirs.close()


def test_what_nobody_sends_is_refused() -> None:
    with pytest.raises(Broken, match="a message of"):
        lengths(b"\xff" * 12)
    for text in (b"{", b"[1]", b"\xff"):
        with pytest.raises(Broken, match="a head"):
            parse(text)
