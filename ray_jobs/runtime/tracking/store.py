"""The MLflow store: where it is, whether it can be used, what to do if not."""

from __future__ import annotations

import fcntl
import os
import socket
import urllib.parse
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ray_jobs.runtime.news.quiet import hush
from retrieval.artifacts.folder import Folder

if TYPE_CHECKING:  # MLflow takes a second to load: whoever uses the store loads it then
    from mlflow import MlflowClient

# MLflow reports its use to its makers unless told not to; a job must not talk to strangers.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Seven tries would hold up an epoch for minutes where a server is away: `outbox` keeps what could not be said.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

STORE = "mlflow.db"


def store_uri(given: str | None, workspace: str | Path | Folder) -> str:
    """The tracking store to use: `given`, else MLFLOW_TRACKING_URI, else SQLite in the workspace. Always absolute.

    Raises: ValueError if none is given and the workspace is an object store, which cannot hold a SQLite file.
    """
    uri = given or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        folder = Folder.of(workspace)
        if "://" in folder.uri:
            raise ValueError(
                f"The workspace {folder} is an object store and cannot hold MLflow's SQLite file. "
                f"Name a tracking server: --tracking-uri http://host:5000, or set MLFLOW_TRACKING_URI."
            )
        uri = f"sqlite:///{folder.path}/{STORE}"
    if (path := sqlite_path(uri)) is not None:
        return f"sqlite:///{path}"  # Ray's workers run in another folder: a relative path would name another file
    return uri


# --- the store ---


def client_of(uri: str) -> MlflowClient:
    """A client of this store, leaving MLflow's process-wide settings alone."""
    from mlflow import MlflowClient

    hush("mlflow", "alembic")  # after the import, which sets their handlers
    with warnings.catch_warnings():
        # MLflow 3.17 on SQLAlchemy 2.1 uses a deprecated loader; the warning is theirs, not the user's.
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy")
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def sqlite_path(uri: str) -> Path | None:
    """The absolute file of a sqlite URI, with three or four slashes; None for any other store."""
    return Path(uri.removeprefix("sqlite:///")).expanduser().absolute() if uri.startswith("sqlite:///") else None


def reach(uri: str) -> None:
    """Fail within seconds: MLflow itself would retry an unreachable store for minutes.

    Raises: ValueError if a SQLite file's folder cannot be made or written, or nothing listens at a server's address.
    """
    try:
        if (path := sqlite_path(uri)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            target = path if path.exists() else path.parent
            if not os.access(target, os.W_OK):
                raise PermissionError(f"no permission to write {target}")
        elif uri.startswith(("http://", "https://")):
            parts = urllib.parse.urlsplit(uri)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), timeout=10).close()
    except OSError as failed:
        raise ValueError(_cannot_use(uri, failed)) from failed


def make(uri: str) -> None:
    """A SQLite file that is not there yet, whole or not at all: MLflow makes its tables one after another, and never
    again opens a file whose maker was killed between two of them.

    Raises: what MLflow and its database raise.
    """
    path = sqlite_path(uri)
    if path is None or path.exists():
        return
    half, lock = path.with_name(f"{path.name}.half"), path.with_name(f"{path.name}.lock")
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # of two runs one makes it
        if not path.exists():
            for left in path.parent.glob(f"{half.name}*"):  # with SQLite's own journal of it
                left.unlink()
            client_of(f"sqlite:///{half}").search_experiments(max_results=1)
            os.replace(half, path)
        lock.unlink(missing_ok=True)  # whoever waits for it finds the file


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what MLflow and its database raise into one message that says what to do."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as failed:
        raise ValueError(_cannot_use(uri, failed)) from failed


def _cannot_use(uri: str, failed: Exception) -> str:
    return (
        f"MLflow at {uri} cannot be used: {failed}. "
        f"Start the server, free or correct the path, or name another store with --tracking-uri."
    )
