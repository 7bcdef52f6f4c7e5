"""Jobs that seal a folder at once, for tests of the road that puts them one behind the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.manifest import begin, seal


def sealed(where: Path | Folder, kind: str, content: str = "", **counts: Any) -> Folder:
    """A sealed folder whose fingerprint is that of its content, wherever it lies."""
    folder = Folder.of(where)
    begin(folder, kind=kind, config={}, inputs={})
    folder.write_bytes("content", content.encode())
    seal(folder, kind=kind, config={}, inputs={}, counts=counts)
    return folder


class FakeJob:
    """Stands for a job's module; `ran` holds the configs its main was called with, `beside` what was handed on."""

    def __init__(self, job: Any, order: list[str] | None = None) -> None:
        self.__name__: str = job.__name__
        self.KIND: str = job.KIND
        self.CONFIG: type[Any] = job.CONFIG
        self.SPEED: tuple[str, ...] = job.SPEED
        self.order = order
        self.ran: list[Any] = []
        self.beside: list[dict[str, Any]] = []

    def main(self, cfg: Any, **beside: Any) -> None:
        if self.order is not None:
            self.order.append(self.__name__.rpartition(".")[2])
        self.ran.append(cfg)
        self.beside.append(beside)
        settings = {name: value for name, value in plain(cfg).items() if name != "out"}
        sealed(Path(cfg.out), self.KIND, str(settings))
