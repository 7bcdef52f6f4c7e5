"""The command that compares two photos: what it answers with, and from what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_jobs.verify import VerifyConfig, main, told
from retrieval.artifacts.calibration import Calibration, Curve, KnownThreshold, Rate, judge, write_calibrations
from retrieval.artifacts.manifest import begin, read_manifest, seal
from retrieval.artifacts.published import publish
from retrieval.images.pixels import encode_jpeg
from retrieval.models.queries.verification import Verdict
from tests.support.workspace import Workspace, make_workspace

RATE = Rate(far=1e-3, threshold=0.5, threshold_interval=(0.49, 0.51))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("w"), num_identities=3, images_per_identity=2)


def measured(made: Workspace) -> None:
    """A report of the model is published beside the index."""
    folders = {kind: made.folder / kind / "test" for kind in ("collection", "model", "index")}
    model, report = read_manifest(folders["model"]).fingerprint, made.folder / "report/test"
    curve = Curve(intercept=-10.0, low=0.0, high=10.0, wrong=0.01)
    found = Calibration(model=model, people=600, photos=2000, curve=curve, rates=(RATE,))
    begin(report, kind="report", config={}, inputs={"a.model": model})
    write_calibrations(report, {"a": found})
    seal(report, kind="report", config={}, inputs={"a.model": model}, counts={})
    publish(made.folder, **folders, report=report)


def test_photos_are_compared_by_what_the_workspace_published(
    made: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, blank = str(next(iter(made.photos.values()))), tmp_path / "blank.jpg"
    cfg = VerifyConfig(first=photo, second=photo, workspace=str(made.folder), device="cpu")
    before = main(cfg)
    assert (before.answer, before.threshold) == ("cannot tell", None) and before.score == pytest.approx(1, abs=1e-3)
    assert "never calibrated" in capsys.readouterr().out

    measured(made)
    after = main(cfg)
    assert (after.answer, after.threshold) == ("same", 0.5)
    said = capsys.readouterr().out
    assert said.startswith("same\n") and "0.500 at a false-accept rate of 0.001" in said
    assert "600 labelled people, 2,000 photos" in said

    blank.write_bytes(encode_jpeg(np.zeros((90, 90, 3), np.uint8)))
    unusable = main(VerifyConfig(first=photo, second=str(blank), workspace=str(made.folder), device="cpu"))
    assert unusable.answer == "cannot tell" and f"{blank} cannot be used" in capsys.readouterr().out


def test_the_probability_told_is_that_of_the_prior() -> None:
    found = Calibration(model="m", curve=Curve(intercept=0.0, low=0.0, high=0.0, wrong=0.01), rates=(RATE,))
    verdict = Verdict(answer="same", why="because", far=1e-3, score=0.6, threshold=0.5)
    assert "0.01 that both show the same, where 0.01 of all pairs do" in told(verdict, found, prior=0.01)
    assert told(verdict, None).splitlines() == [
        "same",
        "  score        0.600",
        "  threshold    0.500",
        "  why          because",
    ]


def test_a_publisher_s_threshold_is_not_said_to_be_at_a_rate() -> None:
    """A rate is promised, and too few people have two photos for probabilities: the publisher's threshold decides."""
    found = Calibration(model="m", rates=(RATE,))
    judged = judge(0.6, 1e-3, found, KnownThreshold(threshold=0.36, source="x"))
    assert (judged.threshold, judged.promised) == (0.36, False)
    verdict = Verdict(answer="same", why="because", far=1e-3, score=0.6, threshold=0.36, promised=judged.promised)
    assert "  threshold    0.360" in told(verdict, found).splitlines()


@pytest.mark.parametrize(("wrong", "says"), [({"far": 0.5}, "far is 0.5"), ({"prior": 1.0}, "prior is 1")])
def test_values_out_of_range_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        VerifyConfig(first="a", second="b", workspace="w", **wrong)


def test_photos_must_be_there_and_the_workspace_published(made: Workspace, tmp_path: Path) -> None:
    photo = str(next(iter(made.photos.values())))
    with pytest.raises(ValueError, match="nothing at .*no.jpg"):
        main(VerifyConfig(first=photo, second=str(tmp_path / "no.jpg"), workspace=str(made.folder)))
    with pytest.raises(ValueError, match="has no CURRENT.json"):
        main(VerifyConfig(first=photo, second=photo, workspace=str(tmp_path)))
