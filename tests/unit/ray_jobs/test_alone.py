"""A job's main is the only writer of its folder."""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from pathlib import Path

import pytest

from ray_jobs import (
    adapt,
    benchmark,
    build_index,
    describe,
    embed,
    evaluate,
    freeze,
    group,
    ingest,
    reconstruct,
    train,
    whiten,
)
from ray_jobs.runtime.alone import alone, at_work_on
from ray_jobs.runtime.news.pulse import read_pulse
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import begin, seal
from retrieval.artifacts.storage.failures import Outage
from retrieval.artifacts.writing.owner import forget_the_dead, sole_writer
from tests.support.object_store import ObjectStore


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


def test_of_an_owner_that_died_after_the_seal_nothing_is_left_and_one_that_lives_is_let_be(tmp_path: Path) -> None:
    out = Folder.of(tmp_path / "out")
    begin(out, kind="model", config={}, inputs={})
    seal(out, kind="model", config={}, inputs={}, counts={})
    lock = tmp_path / "out/.owner"
    lock.write_text("{}")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        forget_the_dead(out)
        assert lock.exists()
    main(Settings(out=out.uri))
    assert not lock.exists()
    main(Settings(out=out.uri))  # there is none


@alone
def fails(cfg: Settings) -> None:
    begin(Folder.of(cfg.out), kind="model", config={}, inputs={})
    raise ValueError("no such weights")


def test_of_one_that_failed_it_is_left_why(tmp_path: Path) -> None:
    out = Folder.of(tmp_path / "out")
    with pytest.raises(ValueError, match="no such weights"):
        fails(Settings(out=out.uri))
    pulse = read_pulse(out)
    assert pulse is not None and (pulse.job, pulse.why) == ("test_alone", "ValueError: no such weights")
    with pytest.raises(ValueError), at_work_on(out, "train 3 epochs"):  # a step of a road, which calls its job
        fails(Settings(out=out.uri))
    pulse = read_pulse(out)
    assert pulse is not None and pulse.job == "train 3 epochs"


def test_one_that_is_refused_says_nothing_of_the_work_of_the_other(tmp_path: Path) -> None:
    out = Folder.of(tmp_path / "out")
    begin(out, kind="model", config={}, inputs={})
    with (Path(out.path) / ".owner").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="is being written by another process"):
            main(Settings(out=out.uri))
    assert read_pulse(out) is None


def test_a_store_that_does_not_answer_is_told_at_once_as_an_outage(s3: ObjectStore, bucket: Folder) -> None:
    with pytest.raises(Outage, match="Storage does not answer: asking for the bucket there failed for 0 s"):
        main(Settings(out="s3://there/w?endpoint_override=127.0.0.1:9&scheme=http"))
    with pytest.raises(ValueError, match="There is no bucket no-such"):
        main(Settings(out=f"s3://no-such/w{s3.options}"))


@pytest.mark.parametrize(
    "job", [adapt, benchmark, build_index, describe, embed, evaluate, freeze, group, ingest, reconstruct, train, whiten]
)
def test_all_jobs_that_make_a_folder_do(job: object) -> None:
    assert hasattr(job.main, "__wrapped__")  # type: ignore[attr-defined]
