"""Photos that crash or hang what reads them, at the start, in the middle and at the end of parts, three in one part.

`python tests/faults/poison.py` runs ingest, reconstruct (features and mapping), embed and train over them, each on a
Ray of its own, and says what was rejected and what that cost. Training ends, and names them. Exits with 1 if a job does
not end, or rejects others than these.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from retrieval.artifacts.folder import Folder  # noqa: E402
from retrieval.artifacts.hashing import plain  # noqa: E402
from retrieval.artifacts.manifest import read_manifest  # noqa: E402
from retrieval.data.demo.places import write_scenes  # noqa: E402
from retrieval.images.native import POISON  # noqa: E402
from tests.support.places import PREPARE, SMALL  # noqa: E402

SECONDS = 15.0  # for one photo
CRASHED, TIMED_OUT = "crashed", "timed-out"
Bad = Mapping[str, str]
"""image_id -> reason that is expected."""


def run(what: str, poison: str, *command: str, ends: int = 0) -> str:
    """A job in a process of its own, with this poison. Returns what it printed.

    Args: ends: the exit status that it must have.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {POISON: poison, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rf-", dir="/tmp", ignore_cleanup_errors=True) as home:
        (Path(home) / "ray").mkdir()
        done = subprocess.run(
            [sys.executable, "-m", *command, "--photo-seconds", str(SECONDS)],
            cwd=ROOT,
            env=env | {"RAY_TMPDIR": home},
            capture_output=True,
            text=True,
            timeout=900,
        )
    print(f"{what}: exit {done.returncode} after {time.monotonic() - started:.0f} s")
    for line in done.stderr.splitlines():
        if re.search(r"WARNING .*(left out|ended its worker)", line):
            print(f"    {line}")
    if done.returncode != ends:
        raise SystemExit(f"{what} failed:\n{done.stderr[-3000:]}")
    return done.stderr


def poison_of(photos: Mapping[str, bytes], bad: Bad) -> str:
    """What the environment is told: photos by the digest of their bytes."""
    how = {CRASHED: "crash", TIMED_OUT: "hang"}
    return ",".join(f"{how[reason]}:{hashlib.sha256(photos[one]).hexdigest()}" for one, reason in bad.items())


def check(what: str, rows: Sequence[Mapping[str, Any]], bad: Bad, printed: str) -> None:
    found = {row["image_id"]: row["reason"] for row in rows if row["reason"] in (CRASHED, TIMED_OUT)}
    if found != bad:
        raise SystemExit(f"{what}: rejected {json.dumps(found)}, expected {json.dumps(dict(bad))}")
    cost = re.search(r"(\d+) photos left out .* cost at most (\d+) s", printed)
    if cost is None or int(cost[1]) != len(bad):
        raise SystemExit(f"{what}: the log does not say what was lost")
    print(f"    {len(bad)} rejected, exactly these, with their reasons; at most {cost[2]} s of workers lost")


def rows_in(folder: Folder) -> list[dict[str, Any]]:
    return [row for name in folder.list() if name.endswith(".parquet") for row in folder.read_table(name).to_pylist()]


def chosen(image_ids: Sequence[str], size: int) -> Bad:
    """The first of part 0, the middle of part 1, and three of part 2 with its last: in `size` photos a part."""
    at = {0: CRASHED, size + size // 2: TIMED_OUT, 2 * size: CRASHED, 2 * size + 2: TIMED_OUT, 3 * size - 1: CRASHED}
    return {image_ids[place]: reason for place, reason in at.items()}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="poison-") as folder:
        over_all_jobs(Path(folder))


def over_all_jobs(where: Path) -> None:
    """Args: where: an empty folder."""
    source = write_scenes(where / "photos", SMALL)
    size = 7  # photos a part, of 21
    ingest = ("ray_jobs.ingest", "--source", str(source), "--part-size", str(size), "--crop", "fit", "--size", "480")
    ingest = (*ingest, "--keep-singles", "--test-fraction", "0", "--val-fraction", "0")
    run("ingest, no poison", "", *ingest, "--out", str(where / "collection"))
    collection = Folder.of(where / "collection")
    files = list((where / "photos").rglob("*.jpg"))
    photos = {
        row["image_id"]: next(path for path in files if str(path).endswith(row["uri"])).read_bytes()
        for row in rows_in(collection / "plan")
    }
    bad = chosen(list(photos), size)
    printed = run("ingest", poison_of(photos, bad), *ingest, "--out", str(where / "bad"))
    check("ingest", rows_in(Folder.of(where / "bad") / "rejected"), bad, printed)
    books = read_manifest(Folder.of(where / "bad")).books[1]
    assert books["taken"] == len(photos) == books["kept"] + sum(books["rejected"].values()), books

    stored: dict[str, bytes] = {}
    for name in (name for name in collection.list() if name.startswith("images/")):
        stored |= {row["image_id"]: row["jpeg"] for row in collection.read_table(name).to_pylist()}
    bad = chosen(list(stored), size)
    of = ("--collection", collection.uri)

    looked = ("ray_jobs.reconstruct", *of, "--reconstruct.max-features", "1024")
    looked = (*looked, "--reconstruct.num-words", "512", "--reconstruct.min-shared", "10")
    printed = run("features", poison_of(stored, bad), *looked, "--out", str(where / "features"))
    check("features", rows_in(Folder.of(where / "features") / "rejected"), bad, printed)
    states = rows_in(Folder.of(where / "features"))
    reasons = {row["image_id"]: row["reason"] for row in states if "status" in row and row["image_id"] in bad}
    assert reasons == dict(bad), reasons

    registered = [row["image_id"] for row in states if row.get("status") == "registered"]
    bad = {registered[0]: CRASHED, registered[-1]: TIMED_OUT}
    words = ",".join(f"{'crash' if reason == CRASHED else 'hang'}:{one}" for one, reason in bad.items())
    printed = run("mapping", words, *looked, "--out", str(where / "mapping"))
    check("mapping", rows_in(Folder.of(where / "mapping") / "rejected"), bad, printed)

    model = where / "model"
    train = (
        "from retrieval.models import bundle; from retrieval.models.settings import ModelConfig; "
        f"bundle.save_start(bundle.start(ModelConfig(backbone='resnet18', head='none', image_size=64), "
        f"weights='none', preparation={plain(PREPARE)!r}, seed=0), bundle.Folder.of({str(model)!r}))"
    )
    subprocess.run([sys.executable, "-c", train], cwd=ROOT, check=True)
    bad = chosen(list(stored), size)
    embed = ("ray_jobs.embed", *of, "--model", str(model), "--out", str(where / "embeddings"))
    printed = run("embed", poison_of(stored, bad), *embed)
    check("embed", Folder.of(where / "embeddings").read_table("rejected.parquet").to_pylist(), bad, printed)
    index = ("--embeddings", str(where / "embeddings"), *of, "--out", str(where / "index"))
    subprocess.run([sys.executable, "-m", "ray_jobs.build_index", *index], cwd=ROOT, check=True, capture_output=True)
    indexed = read_manifest(Folder.of(where / "index")).counts["num"]
    print(f"index: {indexed} of {len(stored)} photos, {len(bad)} of them rejected")
    over_training(where, collection, stored)


def over_training(where: Path, collection: Folder, stored: Mapping[str, bytes]) -> None:
    """By labels, which are the scenes' places: it ends, and names the photos that did it."""
    rows = collection.read_table("catalog.parquet", columns=["image_id", "split"]).to_pylist()
    trained = {row["image_id"]: stored[row["image_id"]] for row in rows if row["split"] in ("train", "val")}
    bad = chosen(list(trained), min(7, len(trained) // 3))
    train = ("ray_jobs.train", "--collection", collection.uri, "--out", str(where / "trained"), "--weights", "none")
    train = (*train, "--model.cut", "features.2", "--model.image-size", "64", "--train.epochs", "1", "--device", "cpu")
    printed = run("train", poison_of(trained, bad), *train, "--cache", str(where / "cache"), ends=2)
    said = next(line for line in printed.splitlines() if line.startswith("ray_jobs.train: train: "))
    named = dict(re.findall(r"[:;] ([^:;]+): (crashed|timed-out) \(", said))
    if named != bad:
        raise SystemExit(f"train: named {json.dumps(named)}, expected {json.dumps(dict(bad))}\n{said}")
    print(f"    {said}")


if __name__ == "__main__":
    main()
