"""Which version answers, and how it is changed: in one assignment, with every request on one version from end to end.

A request takes its version at its first look at `current`, and sees that one until its answer is sent. When another
takes over, requests that are under way finish on the old one, which is closed when the last of them has ended.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.engine.version import Version

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Request:
    """What one request holds. It is the same object in all tasks and threads that work on the request."""

    of: Versions
    version: Version | None = None
    after: list[Callable[[], None]] = field(default_factory=list)


_REQUEST: ContextVar[_Request | None] = ContextVar("request", default=None)


class Versions:
    """Holds the version that answers, and those that still finish. Safe to use from several threads."""

    def __init__(self, first: Version) -> None:
        self._current = first
        self._lock = threading.Lock()
        self._held: Counter[Version] = Counter()
        self._closed = False

    @property
    def current(self) -> Version:
        """Within a request always the same one. Outside of one it may be closed at any moment: use `holding`."""
        request = _REQUEST.get()
        if request is None or request.of is not self:
            return self._current
        if request.version is None:
            with self._lock:
                if request.version is None:
                    request.version = self._current
                    self._held[request.version] += 1
        return request.version

    @contextmanager
    def request(self) -> Iterator[None]:
        """Everything inside sees one version."""
        request = _Request(self)
        token = _REQUEST.set(request)
        try:
            yield
        finally:
            _REQUEST.reset(token)
            for call in request.after:
                call()
            if request.version is not None:
                self._release(request.version)

    def after_this_request(self, call: Callable[[], None]) -> None:
        """Have `call` called when the answer to this request was sent; its version is still held then. Not outside of
        a request."""
        request = _REQUEST.get()
        if request is not None and request.of is self:
            request.after.append(call)

    @contextmanager
    def holding(self, version: Version | None = None) -> Iterator[Version]:
        """The version that answers now, or one that is held already, kept open for as long as the context is."""
        with self._lock:
            version = self._current if version is None else version
            self._held[version] += 1
        try:
            yield version
        finally:
            self._release(version)

    @property
    def num_open(self) -> int:
        """Versions that answer or still finish."""
        with self._lock:
            return len({*self._held, self._current})

    def swap(self, new: Version) -> None:
        """`new` answers whoever asks from now on; the old one is closed when nobody uses it any more."""
        with self._lock:
            if self._closed:
                old = new  # the service ends while a version was being loaded
            else:
                old, self._current = self._current, new
            idle = old not in self._held
        if idle:
            _close(old)

    def close(self) -> None:
        """Nobody asks any more."""
        with self._lock:
            self._closed = True
            left = {*self._held, self._current}
        for version in left:
            version.close()

    def _release(self, version: Version) -> None:
        with self._lock:
            self._held[version] -= 1
            last = not self._held[version]
            if last:
                del self._held[version]
            unused = last and version is not self._current and not self._closed
        if unused:
            _close(version)


class OneVersion:
    """Plain ASGI: each request sees one version from its first byte to the last of its answer."""

    def __init__(self, app: ASGIApp, versions: Versions) -> None:
        self._app, self._versions = app, versions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._versions.request():
            await self._app(scope, receive, send)


def _close(version: Version) -> None:
    """In a thread: to let go of gigabytes takes a while, and nobody should wait for it."""

    def work() -> None:
        version.close()
        logger.info("version %s was closed: its last query has ended", version.name)

    threading.Thread(target=work, name="close-version", daemon=True).start()
