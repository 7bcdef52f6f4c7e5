"""An HTTP proxy before an object store that fails as real ones do: some requests by chance, or all for a while.

It runs in threads of the test's own process, so a test can switch what is injected while workers talk to it. What is
drawn for the n-th request depends on the seed and n alone.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

FAULTS = ("503", "reset", "late-reset", "delay", "truncate")
"""503: told to slow down. reset: the connection ends before the store was asked. late-reset: after it did what it was
asked for, so that the caller cannot know. delay: the answer comes `delay_s` later. truncate: half of the answer."""

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


@dataclass(slots=True)
class Injected:
    """What the proxy does to requests; fields may be changed while it runs."""

    share: float = 0.0
    """Of all requests, those that one of `faults` is drawn for."""
    faults: tuple[str, ...] = FAULTS
    delay_s: float = 5.0
    silent_until: float = 0.0
    """Until this `time.monotonic()` nothing is answered: requests are held, then their connections end."""
    expired: bool = False
    """Credentials are refused, as a token is once it has expired."""
    seen: Counter[str] = field(default_factory=Counter)
    """Requests by what was done to them, 'passed' for most."""


class FaultyProxy:
    """`with FaultyProxy(("127.0.0.1", 9000)) as proxy:` then talk to `proxy.address`."""

    def __init__(self, store: tuple[str, int], injected: Injected | None = None, seed: int = 0) -> None:
        self.injected, self._store, self._seed = injected or Injected(), store, seed
        self._number, self._lock = 0, threading.Lock()
        self._at, self._then = 0, self.expire
        self._server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._closed = False

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._accept, name="faulty-proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._server.close()

    def silence(self, seconds: float) -> None:
        """From now on, and for as long, nothing is answered."""
        self.injected.silent_until = time.monotonic() + seconds

    def after(self, requests: int, then: Callable[[], None]) -> None:
        """Call `then` when so many more requests have come: where a job is, not how fast this machine is."""
        self._at, self._then = self._number + requests, then

    def expire(self) -> None:
        """From now on credentials are refused."""
        self.injected.expired = True

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._server.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """Requests of one connection, one after another."""
        try:
            with client, client.makefile("rb") as requests:
                while (request := _message(requests, go_on=client)) is not None and self._answer(client, request):
                    pass
        except OSError:  # the caller is gone
            return

    def _answer(self, client: socket.socket, request: _Message) -> bool:
        """Whether the connection is still good afterwards."""
        fault = self._drawn()
        with self._lock:
            self.injected.seen[fault] += 1
        if fault == "silent":
            time.sleep(max(0.0, self.injected.silent_until - time.monotonic()))
            return _reset(client)
        if fault in ("503", "expired"):
            status, body = (b"503 Slow Down", _SLOW_DOWN) if fault == "503" else (b"400 Bad Request", _EXPIRED)
            client.sendall(_refusal(status, b"" if request.verb == b"HEAD" else body, len(body)))
            return False
        if fault == "reset":
            return _reset(client)
        if fault == "delay":
            time.sleep(self.injected.delay_s)
        answer = self._forward(request)
        if fault == "late-reset":
            return _reset(client)
        if fault == "truncate" and answer.body:
            client.sendall(answer.head + answer.body[: len(answer.body) // 2])
            return False
        client.sendall(answer.head + answer.body)
        return not answer.ends

    def _drawn(self) -> str:
        with self._lock:
            self._number += 1
            if self._number == self._at:
                self._then()
            chance = random.Random(f"{self._seed} {self._number}")
        if time.monotonic() < self.injected.silent_until:
            return "silent"
        if self.injected.expired:
            return "expired"
        return chance.choice(self.injected.faults) if chance.random() < self.injected.share else "passed"

    def _forward(self, request: _Message) -> _Message:
        with socket.create_connection(self._store) as store, store.makefile("rb") as answers:
            store.sendall(request.head + request.body)
            while (answer := _message(answers, bodiless=request.verb == b"HEAD")) is not None:
                if b" 100 " not in answer.head.partition(b"\r\n")[0]:
                    return answer
        raise ConnectionResetError("the store closed the connection")


@dataclass(frozen=True, slots=True)
class _Message:
    """A request or an answer, byte for byte."""

    head: bytes
    body: bytes

    @property
    def verb(self) -> bytes:
        return self.head.partition(b" ")[0]

    @property
    def ends(self) -> bool:
        return b"connection: close" in self.head.lower()


def _message(stream: BinaryIO, bodiless: bool = False, go_on: socket.socket | None = None) -> _Message | None:
    """The next one; None at the end of the connection. Args: go_on: whom to tell to send a body that waits for that."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return None
        head += line if not line.lower().startswith(b"expect:") else b""
        if go_on is not None and line.lower().startswith(b"expect: 100"):
            go_on.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    status = head.split(b" ", 2)[1]
    if bodiless or status in (b"204", b"304", b"100"):
        return _Message(head, b"")
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        return _Message(head, _chunks(stream))
    return _Message(head, stream.read(int(fields.get(b"content-length", 0))))


def _chunks(stream: BinaryIO) -> bytes:
    """A chunked body as it is, with its trailer."""
    body = b""
    while True:
        size = stream.readline()
        body += size
        if int(size.split(b";")[0], 16) == 0:
            break
        body += stream.read(int(size.split(b";")[0], 16) + 2)
    while (line := stream.readline()) != b"\r\n":
        body += line
    return body + b"\r\n"


def _refusal(status: bytes, body: bytes, length: int) -> bytes:
    head = b"HTTP/1.1 " + status + b"\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    return head + f"Content-Length: {length}\r\n\r\n".encode() + body


def _reset(client: socket.socket) -> bool:
    """End the connection as a crash does, not with a good-bye."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    return False
