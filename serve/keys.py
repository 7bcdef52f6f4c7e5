"""Keys of the programs that may ask the service: made, listed and revoked by a command, and known to it by hash only.

python -m serve.keys create --workspace workspace/faces --name shop --role search --per-minute 600
python -m serve.keys list --workspace workspace/faces
python -m serve.keys revoke --workspace workspace/faces --name shop

A key is 256 random bits, shown once. `keys.json` in the workspace holds its SHA-256: what is random needs no slow hash.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from retrieval.artifacts.folder import Folder

FILE = "keys.json"
PREFIX = "irk_"
"""So that whoever looks for secrets in a repository finds a key that was left there."""

Role = Literal["search", "write", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Each may do what those before it may."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """What is known of a key.

    Raises: ValueError for a role that is none, or a name or a rate that makes no sense.
    """

    name: str
    role: Role
    sha256: str
    """Of the key, hexadecimal."""
    per_minute: int | None = None
    """Requests a minute; None: as many as it likes."""
    created: str = ""
    revoked: str | None = None
    """When; None: it is good."""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"Unknown role '{self.role}'. Choose one of: {', '.join(ROLES)}.")
        if not self.name or len(self.name) > 100 or not self.name.isprintable():
            raise ValueError(f"name is {self.name[:120]!r}, expected 1 to 100 printable characters.")
        if self.per_minute is not None and self.per_minute < 1:
            raise ValueError(f"per_minute is {self.per_minute}, expected 1 or more.")

    def may(self, role: Role) -> bool:
        """Whether its role covers that one."""
        return ROLES.index(self.role) >= ROLES.index(role)


def read_keys(workspace: Folder) -> tuple[Key, ...] | None:
    """Every key that was made, the revoked as well; None if none ever was.

    Raises: ValueError if the file is damaged.
    """
    if not workspace.exists(FILE):
        return None
    try:
        return tuple(Key(**one) for one in workspace.read_json(FILE)["keys"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{workspace}/{FILE} is damaged ({error!r}). Restore it, or remove it and make keys."
        ) from error


def find(keys: Sequence[Key], token: str) -> Key | None:
    """The good key that `token` is. Takes as long for one that is nearly right as for any other."""
    digest, found = _hash(token), None
    for key in keys:
        if hmac.compare_digest(key.sha256, digest) and key.revoked is None:
            found = key
    return found


def create(workspace: Folder, name: str, role: Role, per_minute: int | None = None) -> str:
    """Makes a key and returns it: nobody can tell it again.

    Raises: ValueError if a good key has that name, or `Key` refuses.
    """
    token = PREFIX + secrets.token_urlsafe(32)
    made = Key(name=name, role=role, sha256=_hash(token), per_minute=per_minute, created=_now())
    with _changing(workspace) as keys:
        if any(key.name == name and key.revoked is None for key in keys):
            raise ValueError(f"There is a key named '{name}'. Revoke it first, or choose another name.")
        keys.append(made)
    return token


def revoke(workspace: Folder, name: str) -> None:
    """A running service refuses it within two seconds. Raises: ValueError if no good key has that name."""
    with _changing(workspace) as keys:
        places = [place for place, key in enumerate(keys) if key.name == name and key.revoked is None]
        if not places:
            known = ", ".join(key.name for key in keys if key.revoked is None) or "none"
            raise ValueError(f"There is no key named '{name}'. Good keys: {known}.")
        for place in places:
            keys[place] = replace(keys[place], revoked=_now())


@contextlib.contextmanager
def _changing(workspace: Folder) -> Iterator[list[Key]]:
    """The keys, written whole afterwards. On a local disk nobody else changes them meanwhile."""
    with _alone(workspace):
        keys = list(read_keys(workspace) or ())
        yield keys
        workspace.write_json(FILE, {"keys": [asdict(key) for key in keys]})


@contextlib.contextmanager
def _alone(workspace: Folder) -> Iterator[None]:
    if not workspace.is_local:
        yield
        return
    folder = Path(workspace.path)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder. Give the workspace that the pipeline wrote.")
    with (folder / f".{FILE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True, slots=True)
class CreateConfig:
    """Make a key and show it, once."""

    workspace: str
    """Folder or URI of the workspace that is served."""
    name: str
    """Whose it is; in lists, and to revoke it by."""
    role: Role
    """search: ask and look. write: also add, delete and correct people. admin: also reload, snapshots and metrics."""
    per_minute: int | None = None
    """Requests a minute; None: no limit."""

    def run(self) -> str:
        token = create(Folder.of(self.workspace), self.name, self.role, self.per_minute)
        return f"{token}\nThis is the only time it is shown. Send it as `Authorization: Bearer {PREFIX}...`."


@dataclass(frozen=True, kw_only=True, slots=True)
class ListConfig:
    """Show what is known of every key."""

    workspace: str
    """Folder or URI of the workspace that is served."""

    def run(self) -> str:
        keys = read_keys(Folder.of(self.workspace))
        if keys is None:
            return "No key was made: whoever reaches the service may do everything."
        lines = [f"{'name':24} {'role':8} {'per minute':>10}  {'created':25}  revoked"]
        return "\n".join([*lines, *(_line(key) for key in keys)])


def _line(key: Key) -> str:
    return f"{key.name:24} {key.role:8} {key.per_minute or '-':>10}  {key.created:25}  {key.revoked or '-'}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RevokeConfig:
    """Refuse a key from now on."""

    workspace: str
    """Folder or URI of the workspace that is served."""
    name: str
    """The name it was made with."""

    def run(self) -> str:
        revoke(Folder.of(self.workspace), self.name)
        return f"'{self.name}' is revoked. A running service refuses it within two seconds."


Command = (
    Annotated[CreateConfig, tyro.conf.subcommand("create")]
    | Annotated[ListConfig, tyro.conf.subcommand("list")]
    | Annotated[RevokeConfig, tyro.conf.subcommand("revoke")]
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Raises: SystemExit with a sentence for what cannot be done."""
    command: Any = tyro.cli(Command, prog="python -m serve.keys", description=__doc__, args=arguments)  # type: ignore[call-overload]
    try:
        sys.stdout.write(command.run() + "\n")
    except (ValueError, OSError) as error:
        raise SystemExit(f"{error}") from error


if __name__ == "__main__":
    main()
