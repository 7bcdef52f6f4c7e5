"""What a step's folder is named after, that it is done once, and that each is said."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from ray_jobs import build_index, embed, evaluate, ingest, reconstruct, train, whiten
from ray_jobs.runtime.road import Known, Road, content_of
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import begin, read_manifest
from retrieval.evaluation.settings import System
from retrieval.search.settings import IndexConfig
from tests.support.fake_jobs import FakeJob, sealed

JOBS = (ingest, reconstruct, train, whiten, embed, build_index, evaluate)
# Fields of the jobs that name folders which earlier steps sealed.
FOLDERS = {"collection", "model", "embeddings", "tuples"}


def settings_of(job: Any, inputs: dict[str, Folder]) -> dict[str, Any]:
    """What a job needs at least."""
    fields = {field.name for field in dataclasses.fields(job.CONFIG)}
    given: dict[str, Any] = {name: inputs[name] for name in FOLDERS & fields}
    if job is train:
        del given["model"]  # there it is a config
    if job is ingest:
        given["source"] = Known("photos", "as they are")
    if job is evaluate:
        del given["model"]
        given["systems"] = (System(name="a", model=inputs["model"], embeddings=inputs["embeddings"]),)
    return given


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Folder]:
    return {name: sealed(tmp_path / "in" / name, name, name) for name in FOLDERS}


def other(value: Any) -> Any:
    """Another value of a setting's type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, tuple):
        return (*value, value[0]) if value else ("more",)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        numbers = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        whole = [name for name, number in numbers.items() if isinstance(number, int)]
        name = (whole or [name for name, number in numbers.items() if isinstance(number, float)])[0]
        return dataclasses.replace(value, **{name: numbers[name] + 1 if whole else numbers[name] / 2})
    return 1 if value is None else f"{value}x"


def place_of(where: Path, job: Any, **settings: Any) -> str:
    """The folder that a job's result lies in, relative to the workspace."""
    return Road(Folder.of(where), 1).do(FakeJob(job), **settings).uri.removeprefix(f"{where}/")


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.__name__.rpartition(".")[2])
def test_every_setting_that_decides_is_in_the_key_and_no_other(
    job: Any, inputs: dict[str, Folder], tmp_path: Path
) -> None:
    given = settings_of(job, inputs)
    base = place_of(tmp_path, job, **given)
    assert base.startswith(f"{job.KIND}/") and len(base.rpartition("/")[2]) == 10
    cfg = job.CONFIG(**{name: getattr(value, "uri", value) for name, value in given.items()}, out="")
    assert set(job.SPEED) < {field.name for field in dataclasses.fields(cfg)}, "SPEED names what is no setting"
    for field in dataclasses.fields(cfg):
        if field.name in given or field.name == "out":
            continue
        value = other(getattr(cfg, field.name))
        if field.name in ("layout", "protocol", "subject", "precision", "device"):
            value = {"layout": "folder", "protocol": "leave-one-out", "subject": "place"}.get(field.name, "cpu")
        try:
            changed = place_of(tmp_path, job, **{**given, field.name: value})
        except ValueError:
            continue  # the job refuses it beside the others
        assert (changed == base) == (field.name in job.SPEED), field.name


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.__name__.rpartition(".")[2])
def test_every_input_is_in_the_key_by_its_content(job: Any, inputs: dict[str, Folder], tmp_path: Path) -> None:
    base = place_of(tmp_path, job, **settings_of(job, inputs))
    for name, folder in inputs.items():
        if not any(folder in (value, *_folders_of(value)) for value in settings_of(job, inputs).values()):
            continue
        changed = sealed(tmp_path / "changed" / name, name, "other content")
        assert place_of(tmp_path, job, **settings_of(job, {**inputs, name: changed})) != base, name
        copied = sealed(tmp_path / "copied" / name, name, name)
        assert place_of(tmp_path, job, **settings_of(job, {**inputs, name: copied})) == base, name


def _folders_of(value: Any) -> list[Folder]:
    return (
        [folder for system in value for folder in (system.model, system.embeddings)] if isinstance(value, tuple) else []
    )


def test_what_no_manifest_seals_is_known_by_the_content_it_is_given_with(tmp_path: Path) -> None:
    first = place_of(tmp_path, ingest, source=Known("/here", "content"))
    assert place_of(tmp_path, ingest, source=Known("/there", "content")) == first
    assert place_of(tmp_path, ingest, source=Known("/here", "other")) != first


def test_a_workspace_elsewhere_gives_the_same_keys(inputs: dict[str, Folder], tmp_path: Path) -> None:
    given = settings_of(embed, inputs)
    assert place_of(tmp_path / "a", embed, **given) == place_of(tmp_path / "b=c,d e", embed, **given)


def test_the_job_gets_its_settings_with_places_as_text(inputs: dict[str, Folder], tmp_path: Path) -> None:
    job, road = FakeJob(build_index), Road(Folder.of(tmp_path), 1)
    index = IndexConfig(factory="KDTree")
    settings: dict[str, Any] = {"collection": inputs["collection"], "embeddings": inputs["embeddings"]}
    out = road.do(job, beside={"tracker": "it"}, splits=("gallery",), index=index, **settings)
    (cfg,), (beside,) = job.ran, job.beside
    assert (cfg.collection, cfg.embeddings) == (inputs["collection"].uri, inputs["embeddings"].uri)
    assert (cfg.out, cfg.splits, cfg.index) == (out.uri, ("gallery",), index)
    assert beside == {"tracker": "it"}
    assert read_manifest(out).kind == "index"


def test_systems_keep_their_folders_whatever_they_are_called(tmp_path: Path) -> None:
    where = tmp_path / "a=b,c"
    inputs = {name: sealed(where / name, name, name) for name in FOLDERS}
    job = FakeJob(evaluate)
    Road(Folder.of(where), 1).do(job, **settings_of(evaluate, inputs))
    assert job.ran[0].systems[0].embeddings == inputs["embeddings"]


def test_a_sealed_step_is_not_done_again_and_an_unfinished_one_is(
    inputs: dict[str, Folder], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    given: dict[str, Any] = {"collection": inputs["collection"], "model": inputs["model"]}
    job = FakeJob(embed)
    out = Road(Folder.of(tmp_path), 3).do(job, "embed them", **given)
    assert [record.getMessage() for record in caplog.records] == ["[1/3] embed them"]
    again = Road(Folder.of(tmp_path), 3).do(job, "embed them", **given)
    assert again == out and len(job.ran) == 1
    assert caplog.records[-1].getMessage() == f"[1/3] embed them: there already, {out}"
    for name in ("manifest.json", "content"):
        out.remove(name)
    begin(out, kind="embeddings", config={}, inputs={})
    assert Road(Folder.of(tmp_path), 3).do(job, **given) == out and len(job.ran) == 2
    assert caplog.records[-1].getMessage() == "[1/3] embed"


def test_the_same_step_asked_for_twice_is_counted_and_done_once(
    inputs: dict[str, Folder], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    job, road = FakeJob(embed), Road(Folder.of(tmp_path), 2)
    given: dict[str, Any] = {"collection": inputs["collection"], "model": inputs["model"]}
    first = road.do(job, **given)
    assert road.do(job, **given) == first and len(job.ran) == 1
    road.do(job, precision="fp32", **given)
    assert [record.getMessage()[:5] for record in caplog.records] == ["[1/2]", "[2/2]"]


def test_a_step_with_nothing_to_do_is_counted_and_said(
    inputs: dict[str, Folder], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    road = Road(Folder.of(tmp_path), 2)
    road.pass_by("nothing to measure")
    road.do(FakeJob(embed), "embed them", collection=inputs["collection"], model=inputs["model"])
    assert [record.getMessage() for record in caplog.records] == ["[1/2] nothing to measure", "[2/2] embed them"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    out: str
    words: tuple[str, ...] = ("b", "a")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaterSettings(Settings):
    words: tuple[str, ...] = ("a", "b")


def test_a_default_that_changes_changes_the_key(tmp_path: Path) -> None:
    job, later = FakeJob(embed), FakeJob(embed)
    job.CONFIG, later.CONFIG = Settings, LaterSettings
    road = Road(Folder.of(tmp_path), 2)
    first = road.do(job)
    assert road.do(later) != first == road.do(later, words=("b", "a")), "and the order of a setting is a part of it"


def test_a_step_that_is_no_job_is_keyed_by_what_decides(tmp_path: Path) -> None:
    made: list[Folder] = []

    def work(out: Folder) -> None:
        made.append(out)
        sealed(out, "model")

    def made_at(**decides: Any) -> Folder:
        return Road(Folder.of(tmp_path), 1).make("model", "make it", work, **decides)

    first = made_at(scales=(1.0, 0.5), weights="abc")
    assert made_at(weights="abc", scales=[1.0, 0.5]) == first and made == [first]
    assert len({made_at(scales=(1.0,), weights="abc"), made_at(scales=(1.0, 0.5), weights="abd"), first}) == 3
    assert made_at(other=(1.0, 0.5), weights="abc") != first


def test_an_input_that_is_not_sealed_is_refused_before_the_job_runs(tmp_path: Path) -> None:
    job = FakeJob(embed)
    with pytest.raises(ValueError, match="No sealed artefact at .*nothing: it does not exist"):
        Road(Folder.of(tmp_path), 1).do(
            job, collection=Folder.of(tmp_path / "nothing"), model=Folder.of(tmp_path / "m")
        )
    assert job.ran == []


def test_content_of_looks_into_settings_and_lists(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "x", "model", "x")
    fingerprint = read_manifest(folder).fingerprint
    system = System(name="a", model=folder, embeddings=folder)
    assert content_of({"s": (system,), "p": tmp_path}) == {
        "s": [{"name": "a", "model": fingerprint, "embeddings": fingerprint, "index": None}],
        "p": str(tmp_path),
    }
