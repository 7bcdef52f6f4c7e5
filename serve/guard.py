"""Who may ask for what, and how often: looked at before a byte of the body is read.

Without any key made, everybody may do everything, as long as it is no web page of another site that has a browser ask.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from retrieval.artifacts.folder import Folder
from serve import edge
from serve.edge import Refusal
from serve.keys import Key, Role, find, read_keys

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
_LOOK_FOR_S = 1.0
_BUCKET = "retrieval.bucket"
_OPEN = {"/", "/livez", "/readyz", "/health", "/openapi.json"}
_PAGE_FILES = (".js", ".css", ".html", ".svg", ".ico", ".png", ".webmanifest")
_DATA = ("/v1/", "/gallery/")
_READS = ("GET", "HEAD", "OPTIONS")
_ASKS = {"/search", "/v1/search", "/v1/search/batch", "/v1/verify", "/v1/faces"}
_FREE = "/thumbnail"


def needed(method: str, path: str) -> Role | None:
    """The role that a request needs; None: it is open to everybody."""
    reads = method in _READS
    if reads and (path in _OPEN or (path.endswith(_PAGE_FILES) and not path.startswith(_DATA))):
        return None
    if path == "/metrics" or path.startswith("/v1/admin/"):
        return "admin"
    return "search" if reads or path in _ASKS else "write"


class Bucket:
    """Tokens that come back with time: a minute's at most are there at once."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: per_minute: above 0."""
        self._clock = clock
        self._rate, self._most = per_minute / 60, max(1.0, per_minute)
        self._tokens, self._at = self._most, clock()

    def enter(self) -> float:
        """Takes one token. Returns 0, or how many seconds until there is one: then none is taken."""
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0

    def charge(self, num: float) -> None:
        """Takes more for a request that was let in and turned out to be large; it is paid back by later waiting."""
        self._tokens -= num


def charge(request: Request, num_photos: int) -> None:
    """A request of many photos counts as many requests."""
    bucket: Bucket | None = request.scope.get(_BUCKET)
    if bucket is not None:
        bucket.charge(max(0, num_photos - 1))


class KeyRing:
    """The keys of a workspace, looked at again every second while anybody asks. Used from one event loop.

    Once there were keys, a file that is gone or damaged, or a storage that does not answer, opens nothing: the keys
    known last stay.
    """

    def __init__(self, workspace: Folder, share: float = 1.0) -> None:
        """Args: share: of each key's rate that this replica may let in: one over the number of replicas.

        Raises: ValueError if the file is damaged.
        """
        self._workspace, self._share = workspace, share
        self._keys = read_keys(workspace)
        self._looked = time.monotonic()
        self._buckets: dict[str, Bucket] = {}
        self._looking = asyncio.Lock()

    async def find(self, token: str) -> Key | None:
        """The good key that this is."""
        return find(await self._current() or (), token)

    async def is_open(self) -> bool:
        """Whether no key was ever made."""
        return await self._current() is None

    def bucket(self, key: Key) -> Bucket | None:
        """None for a key without a limit."""
        if key.per_minute is None:
            return None
        if key.sha256 not in self._buckets:
            self._buckets[key.sha256] = Bucket(key.per_minute * self._share)
        return self._buckets[key.sha256]

    async def _current(self) -> tuple[Key, ...] | None:
        if time.monotonic() - self._looked > LOOK_EVERY_S:
            async with self._looking:
                if time.monotonic() - self._looked > LOOK_EVERY_S:
                    await self._look()
        return self._keys

    async def _look(self) -> None:
        try:
            keys = await asyncio.wait_for(asyncio.to_thread(read_keys, self._workspace), _LOOK_FOR_S)
            if keys is None and self._keys is not None:
                raise ValueError("the file is gone")
        except (ValueError, OSError) as error:  # TimeoutError is an OSError
            logger.warning("the keys cannot be read, those known last stay: %s", error)
        else:
            if keys != self._keys:
                good = {key.sha256 for key in keys or () if key.revoked is None}
                self._buckets = {name: bucket for name, bucket in self._buckets.items() if name in good}
                self._keys = keys
        self._looked = time.monotonic()


@dataclass(frozen=True, slots=True)
class Guard:
    """The middleware. Plain ASGI, outside everything that reads a body.

    refused: told the reason of each refusal.
    """

    app: ASGIApp
    ring: KeyRing
    refused: Callable[[str], None] = lambda reason: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                await self._admit(scope)
            except Refusal as refusal:
                self.refused(refusal.reason)
                await edge.refused(refusal)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        """Raises: Refusal no-key, not-allowed or too-many."""
        headers, method, path = Headers(scope=scope), scope["method"], path_of(scope)
        if method not in _READS and _from_another_site(headers):
            raise Refusal("not-allowed", "A page of another site had this asked. Ask from the service's own page.")
        role = needed(method, path)
        if role is None or await self.ring.is_open():
            return
        token = _token(headers)
        key = None if token is None else await self.ring.find(token)
        if key is None:
            what = "needs a key" if token is None else "needs a good key, and this one is unknown or revoked"
            raise Refusal("no-key", f"This {what}: Authorization: Bearer ...", {"WWW-Authenticate": "Bearer"})
        if not key.may(role):
            raise Refusal("not-allowed", f"This needs a key of role {role}; this one's is {key.role}.")
        bucket = self.ring.bucket(key)
        if bucket is None or path.endswith(_FREE):
            return
        if wait := bucket.enter():
            again = {"Retry-After": str(math.ceil(wait))}
            raise Refusal("too-many", f"This key may ask {key.per_minute} times a minute. Wait {wait:.1f} s.", again)
        scope[_BUCKET] = bucket


def describe(document: dict[str, Any]) -> None:
    """Says in an OpenAPI document how a key is shown; none is needed where none was made."""
    document.setdefault("components", {})["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "A key of `python -m serve.keys create`."},
        "header": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key."},
    }
    document["security"] = [{"bearer": []}, {"header": []}, {}]


def _token(headers: Mapping[str, str]) -> str | None:
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key") or None


def _from_another_site(headers: Mapping[str, str]) -> bool:
    """A browser says where a request comes from, and a page cannot change that. Programs say nothing."""
    if (site := headers.get("sec-fetch-site")) is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host", "")


def path_of(scope: Scope) -> str:
    """As the routes see it: without what a proxy put in front."""
    path, prefix = scope["path"], scope.get("root_path", "").rstrip("/")
    return path[len(prefix) :] if prefix and path.startswith(f"{prefix}/") else path
