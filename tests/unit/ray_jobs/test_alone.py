"""A job's main is the only writer of its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from ray_jobs import benchmark, build_index, embed, evaluate, freeze, group, ingest, reconstruct, train, whiten
from ray_jobs.runtime.alone import alone
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import begin, seal
from retrieval.artifacts.writing.owner import sole_writer


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    out: str


@alone
def main(cfg: Settings, add: str = "") -> str:
    """What it says."""
    out = Folder.of(cfg.out)
    assert (Path(out.path) / ".owner").exists() != out.exists("manifest.json")
    return cfg.out + add


def test_it_owns_its_folder_while_it_lasts(tmp_path: Path) -> None:
    cfg = Settings(out=str(tmp_path / "out"))
    assert main(cfg, add="!") == f"{cfg.out}!" and main.__doc__ == "What it says."
    assert list(tmp_path.iterdir()) == []


def test_a_sealed_folder_is_only_read(tmp_path: Path) -> None:
    out = Folder.of(tmp_path / "out")
    begin(out, kind="model", config={}, inputs={})
    seal(out, kind="model", config={}, inputs={}, counts={})
    main(Settings(out=out.uri))
    with sole_writer(out, "another"):  # say one that takes it away
        pass


@pytest.mark.parametrize(
    "job", [benchmark, build_index, embed, evaluate, freeze, group, ingest, reconstruct, train, whiten]
)
def test_all_jobs_that_make_a_folder_do(job: object) -> None:
    assert hasattr(job.main, "__wrapped__")  # type: ignore[attr-defined]
