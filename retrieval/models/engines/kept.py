"""Exported networks, kept on this machine: exported once, by one process, for all that embed with the bundle.

They lie in $RETRIEVAL_CACHE, else in the user's cache folder, never in the bundle: that is sealed, and may be on object
storage. A network that does not export is remembered as well, with the reason.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import digest
from retrieval.artifacts.node.cache import own_folder
from retrieval.models.engines.exported import DoesNotExport, Exported

logger = logging.getLogger(__name__)

GRAPH, TAIL, SEAL = "network.onnx", "rest.npz", "export.json"
_RECIPE = 1  # of export.py: another number makes all networks anew


def keep(fingerprint: str, make: Callable[[], Exported]) -> Exported:
    """The exported network of a bundle: the one that is kept, else made, and kept.

    Processes that want the same one wait for the first of them.

    Args: make: exports it. Raises: DoesNotExport now, or because it did when it was tried. What else `make` raises, a
        full disk or a damaged bundle, is not remembered.
    """
    folder = cache() / f"{fingerprint[:32]}-{_key()}"
    if (found := _read(Folder.of(folder))) is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (found := _read(Folder.of(folder))) is not None:
            return found
        return _write(Folder.of(folder), fingerprint, make)


def cache() -> Path:
    """The folder of this user's exported networks. One that others may write to would let them choose the network."""
    return own_folder("engines")


def _read(folder: Folder) -> Exported | None:
    """Raises: DoesNotExport if it is known that the network does not export."""
    if not folder.exists(SEAL):
        return None
    seal: dict[str, Any] = folder.read_json(SEAL)
    if seal["refused"]:
        raise DoesNotExport(seal["refused"])
    if not all(folder.exists(name) for name in (GRAPH, TAIL)):
        return None
    files = {name: folder.read_bytes(name) for name in (GRAPH, TAIL)}
    if any(_sha(content) != seal["files"][name] for name, content in files.items()):
        logger.warning("%s is damaged: the network is exported again", folder)
        return None
    return Exported.of(files[GRAPH], files[TAIL])


def _write(folder: Folder, fingerprint: str, make: Callable[[], Exported]) -> Exported:
    """The seal is written last: without it the folder is unfinished."""
    seal: dict[str, Any] = {"fingerprint": fingerprint, "versions": _versions(), "refused": "", "files": {}}
    try:
        exported = make()
    except DoesNotExport as error:
        folder.write_json(SEAL, seal | {"refused": str(error)})
        raise
    files = {GRAPH: exported.graph, TAIL: exported.tail()}
    for name, content in files.items():
        folder.write_bytes(name, content)
    folder.write_json(SEAL, seal | {"files": {name: _sha(content) for name, content in files.items()}})
    logger.info("The network %s is exported for onnxruntime, once: %s", fingerprint[:12], folder)
    return exported


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _versions() -> dict[str, str]:
    """Of what makes and runs them; onnxruntime goes by other names where it was built for a GPU."""
    import onnxruntime

    return {"torch": importlib.metadata.version("torch"), "onnxruntime": onnxruntime.__version__}


def _key() -> str:
    return digest([_RECIPE, _versions()])[:8]
