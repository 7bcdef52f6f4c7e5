"""Who takes the champion's place, and which version a name means."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_jobs.runtime.tracking import registry
from ray_jobs.runtime.tracking.registry import beats, champion_of, compare, fetch_bundle, version_of
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from tests.support.fake_jobs import sealed

OLD = {"metric": "val/mAP", "value": "0.5", "measured_on": "data-1"}


@pytest.mark.parametrize(
    ("new", "better", "reason"),
    [
        ({}, False, "0.5000 does not beat 0.5000"),
        ({"value": "0.50001"}, True, "beats"),
        ({"value": "0.4"}, False, "does not beat"),
        ({"value": "0.9", "measured_on": "data-2"}, False, "do not compare"),
        ({"value": "0.9", "metric": "val/recall@1"}, False, "do not compare"),
    ],
)
def test_only_more_of_the_same_metric_on_the_same_data_is_better(
    new: dict[str, str], better: bool, reason: str
) -> None:
    found = beats({**OLD, **new}, OLD)
    assert found[0] is better
    assert reason in found[1]


def test_a_champion_made_by_hand_is_not_replaced_by_itself() -> None:
    assert beats(OLD, {}) == (False, "it has no recorded metric to beat; promote a version by hand")
    unranked = (False, "it was not validated, so it has no figure to be ranked by; promote it by hand")
    assert beats({"fingerprint": "a"}, OLD) == beats({}, {}) == unranked


def version(number: str, name: str = "faces", **tags: str) -> Any:
    return SimpleNamespace(name=name, version=number, tags=tags, source=f"runs:/r/{number}")


class FakeClient:
    """A registry of one model, with an alias."""

    def __init__(self, versions: list[Any], aliases: dict[str, int] | None = None, known: bool = True) -> None:
        self.versions, self.aliases, self.known = versions, aliases or {}, known
        self.created: list[str] = []
        self.error_code = "RESOURCE_DOES_NOT_EXIST"

    def get_registered_model(self, name: str) -> Any:
        if not self.known:
            from mlflow.exceptions import MlflowException

            error = MlflowException("no such model")
            error.error_code = self.error_code
            raise error
        return SimpleNamespace(aliases=self.aliases)

    def create_registered_model(self, name: str, description: str) -> None:
        self.created.append(name)

    def search_model_versions(self, where: str) -> list[Any]:
        return [one for one in self.versions if where == f"name = '{one.name}'"]

    def get_model_version(self, name: str, number: str) -> Any:
        assert isinstance(number, str), "MLflow's stores want a text"
        return next(one for one in self.versions if (one.name, one.version) == (name, number))

    def get_model_version_by_alias(self, name: str, alias: str) -> Any:
        return self.get_model_version(name, str(self.aliases[alias]))


def test_the_first_version_is_champion_and_the_champion_does_not_replace_itself() -> None:
    first = version("1", **OLD)
    assert compare(first, None) == (True, "first version, so it is the champion")
    assert compare(first, version("1", **OLD)) == (False, "it is the champion already")
    better, reason = compare(version("2", **{**OLD, "value": "0.75"}), first)
    assert (better, reason) == (True, "champion is version 1: val/mAP 0.7500 beats 0.5000")
    assert compare(version("3", **{**OLD, "value": "0.25"}), first)[0] is False


def test_values_are_compared_as_numbers_not_as_texts() -> None:
    assert beats({**OLD, "value": "10.0"}, {**OLD, "value": "9.0"})[0] is True
    assert beats({**OLD, "value": "1e-05"}, {**OLD, "value": "0.5"})[0] is False


def test_the_champion_is_who_the_alias_points_at() -> None:
    client: Any = FakeClient([version("1"), version("2")], {"champion": 2, "staging": 1})
    found = champion_of(client, "faces")
    assert found is not None and found.version == "2"
    assert champion_of(FakeClient([version("1")], {"staging": 1}), "faces") is None  # type: ignore[arg-type]


def test_a_bundle_is_found_again_by_its_fingerprint() -> None:
    client: Any = FakeClient([version("1", fingerprint="aa"), version("2", fingerprint="bb"), version("3", "places")])
    found = version_of(client, "faces", "bb")
    assert found is not None and found.version == "2"
    assert version_of(client, "faces", "cc") is None and client.created == []


def test_a_models_entry_is_made_on_first_use_and_other_failures_are_not_swallowed() -> None:
    client: Any = FakeClient([], known=False)
    assert version_of(client, "faces", "aa") is None and client.created == ["faces"]
    client.error_code = "PERMISSION_DENIED"
    with pytest.raises(Exception, match="no such model"):
        version_of(client, "faces", "aa")
    assert client.created == ["faces"]


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two versions that lie as folders, fetched by a copy; `downloads` says how often."""
    import shutil

    import mlflow.artifacts

    bundles = {f"runs:/r/{number}": sealed(tmp_path / f"stored-{number}", "model", number) for number in ("1", "2")}
    versions = [
        version(number, fingerprint=read_manifest(bundles[f"runs:/r/{number}"]).fingerprint) for number in ("1", "2")
    ]
    client, downloads = FakeClient(versions, {"champion": 2}), []

    def download(source: str, dst_path: str, tracking_uri: str) -> str:
        downloads.append((source, tracking_uri))
        return shutil.copytree(bundles[source].path, f"{dst_path}/bundle")

    monkeypatch.setattr(registry, "client_of", lambda uri: client)
    monkeypatch.setattr(registry, "reach", lambda uri: None)
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", download)
    return {"bundles": bundles, "downloads": downloads, "into": tmp_path / "cache", "client": client}


def test_a_bundle_is_fetched_by_alias_or_number_and_once(registered: dict[str, Any]) -> None:
    into = registered["into"]
    champion = fetch_bundle("models:/faces@champion", into, uri="store")
    assert (champion / "content").read_bytes() == b"2" and champion.name.startswith("faces-2-")
    assert fetch_bundle("models:/faces/2", into, uri="store") == champion
    assert (fetch_bundle("models:/faces/1", into, uri="store") / "content").read_bytes() == b"1"
    assert registered["downloads"] == [("runs:/r/2", "store"), ("runs:/r/1", "store")]
    assert sorted(path.name[:8] for path in into.iterdir()) == ["faces-1-", "faces-2-"], "nothing half lies about"


@pytest.mark.parametrize("uri", ["faces", "models:/faces", "models://3", "faces@champion", "faces/1"])
def test_a_name_that_says_no_version_is_refused(uri: str, registered: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Cannot read model URI.*models:/<name>@champion"):
        fetch_bundle(uri, registered["into"], uri="store")


def test_what_is_not_what_was_registered_is_refused(registered: dict[str, Any]) -> None:
    stored: Folder = registered["bundles"]["runs:/r/1"]
    stored.write_bytes("content", b"changed")
    with pytest.raises(ValueError, match=r"not the bundle that was registered \(content\)"):
        fetch_bundle("models:/faces/1", registered["into"], uri="store")
    registered["client"].versions[1].tags["fingerprint"] = "another"
    with pytest.raises(ValueError, match=r"not the bundle that was registered \(another fingerprint\)"):
        fetch_bundle("models:/faces/2", registered["into"], uri="store")
    assert list(registered["into"].iterdir()) == []
