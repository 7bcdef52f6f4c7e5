"""What is named and not there is refused in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ray_jobs.runtime.inputs import must_be_sealed, must_be_there, source_must_be_there, weights_must_be_there
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.storage.failures import Outage
from tests.support.object_store import ObjectStore


def test_files_and_folders_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.csv").write_text("path\n")
    monkeypatch.chdir(tmp_path)
    for place in (str(tmp_path), str(tmp_path / "list.csv"), "list.csv", f"file://{tmp_path}"):
        source_must_be_there(place)
        weights_must_be_there(place)


def test_what_is_not_there_is_refused_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"There is nothing at {tmp_path}/photos\. Name a folder of photos"):
        source_must_be_there("photos")
    with pytest.raises(ValueError, match=rf"There is nothing at {tmp_path}/x\.pth\. Give weights: a"):
        weights_must_be_there("x.pth")


def test_an_address_that_cannot_be_asked_is_refused_too() -> None:
    with pytest.raises(ValueError, match=r"s4://bucket/photos is in no store that is known"):
        must_be_there("s4://bucket/photos", "Try another.")
    nobody = "s3://bucket/photos?endpoint_override=127.0.0.1:9&scheme=http"
    with pytest.raises(
        ValueError, match=r"Cannot look at s3://bucket/photos.*: .*connect to server.*\. Try another\.$"
    ):
        must_be_there(nobody, "Try another.")


def test_a_store_of_an_earlier_step_that_does_not_answer_is_an_outage(s3: ObjectStore, bucket: Folder) -> None:
    with pytest.raises(Outage, match="Storage does not answer: asking for the bucket there failed for 0 s"):
        must_be_sealed(model="s3://there/w?endpoint_override=127.0.0.1:9&scheme=http")
    with pytest.raises(ValueError, match=f"No sealed model at {re.escape(bucket.uri)}: it does not exist"):
        must_be_sealed(model=bucket.uri)


@pytest.mark.parametrize("weights", ["none", "imagenet", "models:/faces@champion", "models:/faces/3"])
def test_weights_that_are_no_file_are_asked_for_later(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights_must_be_there(weights)
