"""Hosts that share the log of a gallery: what each knows, and the log itself."""

from __future__ import annotations

from collections.abc import Callable

from retrieval.artifacts.folder import Folder
from retrieval.live.log.objects import Log
from retrieval.live.store import Store
from tests.support.writers import MODEL

Host = Callable[[str], Store]
"""Opens the store of a host, by the host's name."""


def names(store: Store) -> set[str]:
    """Of the images that are in the gallery as this host sees it."""
    return {row.entry.image_id for row in store.changed(0, MODEL).rows}


def log_of(workspace: Folder) -> Log:
    """The log that all hosts write to."""
    return Log(workspace / "live", "gallery.db")
