"""The detector is decided once, by what is found, and said where it is the lesser one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ray_jobs.runtime.detector import with_detector
from retrieval.images.settings import PrepareConfig
from tests.support.photos import yunet


def test_yunet_is_taken_where_its_file_is(caplog: pytest.LogCaptureFixture) -> None:
    for config in (PrepareConfig(), PrepareConfig(crop="aligned"), PrepareConfig(crop="box")):
        resolved, network = with_detector(config)
        assert (resolved.detector, resolved.crop, network) == ("yunet", config.crop, yunet())
    assert with_detector(PrepareConfig(detector="yunet"))[1] == yunet()
    assert not caplog.records


@pytest.mark.parametrize(
    "config", [PrepareConfig(detector="haar"), PrepareConfig(crop="fit"), PrepareConfig(crop="none")]
)
def test_where_nobody_needs_it_no_file_is_looked_for(config: PrepareConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_jobs.runtime.detector.find", lambda _: pytest.fail("looked for"))
    resolved, network = with_detector(config)
    assert (resolved.detector, network) == ("haar", None)


def test_without_its_file_haar_is_taken_and_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ray_jobs.runtime.detector.find", lambda _: None)
    with caplog.at_level(logging.WARNING):
        resolved, network = with_detector(PrepareConfig())
    assert (resolved.detector, network) == ("haar", None)
    assert "YuNet's file was not found" in caplog.text and "ray_jobs.weights" in caplog.text
    for config in (PrepareConfig(detector="yunet"), PrepareConfig(crop="aligned")):
        with pytest.raises(ValueError, match="needs the file of YuNet"):
            with_detector(config)


def test_another_file_in_its_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "face_detection_yunet_2023mar_int8bq.onnx").write_bytes(b"another")
    monkeypatch.setenv("RETRIEVAL_WEIGHTS", str(tmp_path))
    with pytest.raises(ValueError, match="is not yunet as it was published"):
        with_detector(PrepareConfig())
