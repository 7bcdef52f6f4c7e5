"""The ingest job on a real local Ray: books, resume after kill -9, refusals in words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from ray_jobs.ingest import IngestConfig, main, source_fingerprint
from retrieval.artifacts.collection import detector_of
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.data.demo.faces import draw_collection
from retrieval.images.pixels import decode, encode_jpeg, resize
from retrieval.images.settings import PrepareConfig
from tests.support.photos import yunet

pytestmark = pytest.mark.usefixtures("ray_local")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn CelebA set of 12 people x 8 with everything that goes wrong in real ones."""
    folder = tmp_path_factory.mktemp("set") / "demo \u00fc"
    draw_collection(folder, num_identities=12, images_per_identity=8, flaws=True)
    images = folder / "img_align_celeba"
    (images / "000005.jpg").write_bytes((images / "000004.jpg").read_bytes())
    (images / "000006.jpg").write_bytes(b"")
    (images / "000007.jpg").write_bytes(b"text")
    (images / "000008.jpg").unlink()
    return folder


def sealed(folder: Path) -> dict[str, Any]:
    """All that a collection holds, without the time it was made."""
    manifest = read_manifest(Folder.of(folder), "collection")
    return {"fingerprint": manifest.fingerprint, "counts": manifest.counts, "books": manifest.books} | manifest.files


def test_ingest_books_catalogue_and_doing_nothing_twice(photos: Path, tmp_path: Path) -> None:
    cfg = IngestConfig(source=str(photos), out=str(tmp_path / "out"))
    out = main(cfg)
    manifest = read_manifest(out, "collection")
    counts = manifest.counts
    assert counts["source"] == 96 == counts["stored"] + counts["rejected"]
    assert counts["rejected_by_reason"]["empty"] == counts["rejected_by_reason"]["not-an-image"] == 1
    assert counts["rejected_by_reason"]["missing"] >= 1
    assert sum(counts["rejected_by_reason"].values()) == counts["rejected"]
    assert counts["duplicates"] >= 1
    splits = sum(counts[name] for name in ("train", "val", "query", "gallery", "dropped"))
    catalog = out.read_table("catalog.parquet")
    assert splits == counts["stored"] == catalog.num_rows == len(set(catalog.column("image_id").to_pylist()))
    assert counts["query"] == counts["query_identities"]
    assert [book["stage"] for book in manifest.books] == ["plan", "ingest", "split"]
    sides: dict[str, set[str]] = {}
    for row in catalog.to_pylist():
        if row["split"] != "dropped":
            sides.setdefault(row["label"], set()).add(row["split"])
    assert all(side in ({"train"}, {"val"}, {"query", "gallery"}) for side in sides.values())
    made = manifest.created
    assert main(cfg) == out
    assert read_manifest(out).created == made


def test_killed_at_half_and_run_again_equals_undisturbed(photos: Path, tmp_path: Path) -> None:
    settings = {"source": str(photos), "part_size": 6}
    undisturbed = main(IngestConfig(out=str(tmp_path / "whole"), **settings))
    killed = tmp_path / "killed"
    before = _kill_at_half(photos, killed)
    assert 1 <= len(before) < 16
    assert not (killed / "manifest.json").exists()
    main(IngestConfig(out=str(killed), **settings))
    for name, (written, size) in before.items():  # done parts are kept, not done again
        assert ((killed / name).stat().st_mtime_ns, (killed / name).stat().st_size) == (written, size)
    assert sealed(killed) == sealed(Path(undisturbed.path))


def _kill_at_half(photos: Path, out: Path) -> dict[str, tuple[int, int]]:
    """Start the job as a command on this cluster and kill -9 its driver when half of the 16 parts are there.

    Returns: the parts whose two outputs were complete then: name -> (time written, size).
    """
    command = [sys.executable, "-m", "ray_jobs.ingest", "--source", str(photos), "--out", str(out), "--part-size", "6"]
    # Slowed down, so that the kill falls between parts and not after them: one part at a time.
    command += ["--cpus-per-part", "2"]
    address = ray.get_runtime_context().gcs_address
    root = Path(__file__).resolve().parents[2]
    with (out.parent / "log").open("wb") as log:
        driver = subprocess.Popen(command, cwd=root, env=os.environ | {"RAY_ADDRESS": address}, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while len(_complete(out)) < 8:
                assert driver.poll() is None, (out.parent / "log").read_text()
                assert time.monotonic() < deadline, "the job did not come to its half in 120 s"
                time.sleep(0.01)
        finally:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
    settled, deadline = _complete(out), time.monotonic() + 60
    while time.monotonic() < deadline:  # the cluster ends the dead driver's tasks a moment later
        time.sleep(1.0)
        if settled == (settled := _complete(out)):
            return settled
    raise AssertionError("the tasks of a driver that was killed 60 s ago still write parts")


def _complete(out: Path) -> dict[str, tuple[int, int]]:
    both = (out / "images", out / "rejected")
    done = set.intersection(*({path.name for path in folder.glob("part-?????.parquet")} for folder in both))
    paths = [out / "images" / name for name in sorted(done)]
    return {f"images/{path.name}": (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}


def test_another_setting_or_source_is_refused_in_words(photos: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    source = tmp_path / "two"
    for person in ("ann", "bo"):
        (source / person).mkdir(parents=True)
        for number, path in enumerate(sorted((photos / "img_align_celeba").glob("00001?.jpg"))[:2]):
            (source / person / f"{number}.jpg").write_bytes(path.read_bytes() + person.encode())
    main(IngestConfig(source=str(source), out=out))
    with pytest.raises(ValueError, match=r"config.prepare.*another output folder"):
        main(IngestConfig(source=str(source), out=out, prepare=PrepareConfig(margin=0.3)))
    before = source_fingerprint(str(source))
    (source / "ann" / "new.jpg").write_bytes(b"x")
    assert source_fingerprint(str(source)) != before
    with pytest.raises(ValueError, match=r"1 new \(first: ann/new.jpg\)") as caught:
        main(IngestConfig(source=str(source), out=out))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("place", ["file/out", "/proc/no-folder-can-be-made-here"])
def test_no_permission_to_write_is_said_in_words(photos: Path, tmp_path: Path, place: str) -> None:
    """Below a file, and in /proc: places that refuse even root, whom permission bits do not bind."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="Cannot write to"):
        main(IngestConfig(source=str(photos), out=str(tmp_path / place)))


def test_empty_and_absent_sources_are_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="No photos at"):
        main(IngestConfig(source=str(tmp_path / "empty"), out=str(tmp_path / "out")))
    with pytest.raises(ValueError, match="There is nothing at"):
        main(IngestConfig(source=str(tmp_path / "absent"), out=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_unlabelled_photos_become_a_gallery(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted((photos / "img_align_celeba").glob("00001?.jpg"))[:4]:
        (folder / path.name).write_bytes(path.read_bytes())
    counts = read_manifest(main(IngestConfig(source=str(folder), out=str(tmp_path / "out")))).counts
    assert (counts["gallery"], counts["query"], counts["train"], counts["identities"]) == (counts["stored"], 0, 0, 0)
    assert counts["stored"] >= 3


def test_what_a_source_is_taken_for_is_said_before_any_work(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for year in ("2019", "2020"):
        (tmp_path / "photos" / year).mkdir(parents=True)
        for path in sorted((photos / "img_align_celeba").glob(f"0000{year[2:]}.jpg")):
            (tmp_path / "photos" / year / path.name).write_bytes(path.read_bytes())
    (tmp_path / "photos" / "2019" / "1.cr2").write_bytes(b"raw")
    with caplog.at_level("INFO"):
        counts = read_manifest(main(IngestConfig(source=str(tmp_path / "photos"), out=str(tmp_path / "out")))).counts
    said = [record.getMessage() for record in caplog.records]
    work = next(number for number, line in enumerate(said) if "photos in 1 parts" in line)
    assert any(
        "2 photos in 2 folders (layout folder, told by what is there), no labels" in line for line in said[:work]
    )
    assert any("camera RAW, which cannot be read: convert them to JPEG: 1 .cr2" in line for line in said[:work])
    assert (counts["gallery"], counts["identities"]) == (counts["stored"], 0) == (2, 0)


def test_every_face_of_a_group_photo_is_a_row_found_by_the_network_that_is_sealed_with_it(
    photos: Path, tmp_path: Path
) -> None:
    faces = [decode((photos / "img_align_celeba" / f"0000{n}.jpg").read_bytes())[0] for n in (20, 30, 40)]
    faces = [resize(face, 178, 218) for face in faces]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "group.jpg").write_bytes(encode_jpeg(np.hstack(faces)))
    (tmp_path / "photos" / "wall.jpg").write_bytes(encode_jpeg(np.full((300, 300, 3), 90, np.uint8)))
    prepare = PrepareConfig(crop="aligned", faces="all", size=112, margin=0.0)
    out = main(IngestConfig(source=str(tmp_path / "photos"), out=str(tmp_path / "out"), prepare=prepare))
    manifest = read_manifest(out)
    assert manifest.config["prepare"]["detector"] == "yunet" and manifest.inputs["detector"]
    assert detector_of(out) == yunet() and "detector.onnx" in manifest.files
    assert (manifest.counts["photos"], manifest.counts["stored"], manifest.counts["faces"]) == (1, 3, 3)
    assert [book["stage"] for book in manifest.books] == ["plan", "ingest", "faces", "split"]
    ids = out.read_table("catalog.parquet")["image_id"].to_pylist()
    assert ids == ["group.jpg#0", "group.jpg#1", "group.jpg#2"]


def test_help_names_every_setting() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ray_jobs.ingest", "--help"],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    for flag in ("--source", "--out", "--layout", "--crop", "--margin", "--size", "--test-fraction", "--seed"):
        assert flag in done.stdout
