"""Every command answers at once: nothing heavy is loaded for --help, a wrong flag or value, or a missing folder.

One process a command, which gives it four command lines in turn and looks what has been loaded after each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
HEAVY = (
    "torch",
    "torchvision",
    "ray",
    "mlflow",
    "faiss",
    "cv2",
    "pycolmap",
    "matplotlib",
    "scipy",
    "pandas",
    "fastapi",
)

# Command -> its words before any flag, a value out of range, a folder that is not there, and what is said of the two.
COMMANDS: dict[str, tuple[str, str, str, str, str]] = {
    "ray_jobs.ingest": ("--out {0}/o", "--source {0} --part-size 0", "--source {0}/no", "part_size is 0", "nothing at"),
    "ray_jobs.reconstruct": (
        *("--out {0}/o", "--collection {0} --reconstruct.rounds -1", "--collection {0}/no"),
        *("rounds is -1", "No sealed collection at"),
    ),
    "ray_jobs.describe": (
        *("--out {0}/o", "--collection {0} --features.max-side 5", "--collection {0}/no"),
        *("max_side is 5", "No sealed collection at"),
    ),
    "ray_jobs.train": (
        *("--out {0}/o", "--collection {0} --train.epochs 0", "--collection {0}/no --weights none"),
        *("epochs must be 1 or more", "No sealed collection at"),
    ),
    "ray_jobs.freeze": (
        *("--out {0}/o", "--collection {0} --model.image-size 7", "--collection {0}/no"),
        *("image_size must be 8 or more", "No sealed collection at"),
    ),
    "ray_jobs.weights": (
        *("--no-downloads", "--fetch nobody", "--fetch sface-fp32 --to {0}/no"),
        *("Unknown weights 'nobody'", "downloads are off"),
    ),
    "ray_jobs.whiten": (
        "--out {0}/o --model {0}/no --embeddings {0}/no --tuples {0}/no",
        *("--collection {0} --whiten.shrinkage 2", "--collection {0}/no"),
        *("shrinkage is 2", "No sealed collection at"),
    ),
    "ray_jobs.adapt": (
        "--out {0}/o --model {0}/no --embeddings {0}/no",
        *("--collection {0} --shrinkage 2", "--collection {0}/no"),
        *("shrinkage must be from 0 to 1, got 2", "No sealed collection at"),
    ),
    "ray_jobs.embed": (
        *("--out {0}/o --model {0}/no", "--collection {0} --batch-size 0", "--collection {0}/no"),
        *("batch_size is 0", "No sealed collection at"),
    ),
    "ray_jobs.group": (
        *("--out {0}/o --embeddings {0}/no --collection {0}/no", "--index {0} --group.neighbours 0", "--index {0}/no"),
        *("neighbours is 0", "No sealed index at"),
    ),
    "ray_jobs.compact": (
        *("--keep-old", "--workspace {0} --wait-s -1", "--workspace {0}/no"),
        *("wait_s is -1", "has no CURRENT.json"),
    ),
    "ray_jobs.publish": (
        *("--back", "--workspace {0} --list", "--workspace {0}/no"),
        *("one of --list, --back", "has no CURRENT.json"),
    ),
    "ray_jobs.snapshot": (
        *("--verify x", "--workspace {0} --list", "--workspace {0}/no"),
        *("--list, --verify", "no snapshot"),
    ),
    "ray_jobs.status": ("--json", "--workspace {0} --every 0", "--workspace {0}/no", "every is 0", "nothing at"),
    "ray_jobs.agreement": (
        *("--tracking-uri sqlite:///{0}/m.db", "--workspace {0} --experiment=", "--workspace {0}/no"),
        *("experiment is empty", "No query service has counted"),
    ),
    "ray_jobs.build_index": (
        *("--out {0}/o --collection {0}/no", "--embeddings {0} --index.nprobe 0", "--embeddings {0}/no"),
        *("nprobe is 0", "No sealed embeddings at"),
    ),
    "ray_jobs.evaluate": (
        *("--out {0}/o --systems a={0}/m,{0}/e", "--collection {0} --rerank -1", "--collection {0}/no"),
        *("rerank is -1", "No sealed collection at"),
    ),
    "ray_jobs.benchmark": (
        *("--out {0}/o --photos {0}/no --truth {0}/gnd_x.pkl", "--model {0} --expansion.num -1", "--model {0}/no"),
        *("expansion num is -1", "No sealed model at"),
    ),
    "ray_jobs.verify": (
        *("--workspace {0}/w", "{0}/a.jpg {0}/b.jpg --far 0.5", "{0}/no.jpg {0}/no.jpg"),
        *("far is 0.5", "nothing at"),
    ),
    "ray_jobs.pipeline": (
        *("faces --workspace {0}/w", "--grouping.neighbours 0", "--source {0}/no"),
        *("neighbours is 0", "nothing at"),
    ),
    "serve.demo": ("--k 3", "--workspace {0} --k 0", "--workspace {0}/no", "k is 0", "no CURRENT.json"),
    "ray_jobs.pipeline landmarks": (
        *("landmarks --workspace {0}/w", "--rerank -1", "--weights {0}/no.pth"),
        *("rerank is -1", "nothing at"),
    ),
}

ASK = """
import contextlib, io, json, runpy, sys
module, heavy, lines = json.loads(sys.argv[1])
found = []
for line in lines:
    sys.argv, said, code = [module, *line], io.StringIO(), None
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code
    found.append({"code": code, "said": said.getvalue(), "heavy": [name for name in heavy if name in sys.modules]})
print(json.dumps(found))
"""


def ask(command: str, folder: Path) -> list[dict[str, Any]]:
    """What a command answers to --help, a wrong flag, a value out of range and a missing folder."""
    words, wide, missing, *_ = (text.format(folder).split() for text in COMMANDS[command])
    first = words[:1] if words[0][0] != "-" else []
    lines = [[*first, "--help"], [*words, *missing, "--ouut", "x"], [*words, *wide], [*words, *missing]]
    order = json.dumps([command.partition(" ")[0], HEAVY, lines])
    env = {**os.environ, "MLFLOW_TRACKING_URI": ""}
    done = subprocess.run([sys.executable, "-c", ASK, order], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("answers")
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(COMMANDS, pool.map(lambda command: ask(command, folder), COMMANDS), strict=True))


def test_every_job_is_asked() -> None:
    runnable = {f"ray_jobs.{path.stem}" for path in (ROOT / "ray_jobs").glob("*.py") if "__main__" in path.read_text()}
    assert runnable | {"serve.demo"} == {command.partition(" ")[0] for command in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS)
def test_mistakes_are_answered_before_anything_heavy_is_loaded(
    command: str, answers: dict[str, list[dict[str, Any]]]
) -> None:
    helped, misspelt, wide, missing = answers[command]
    prog = f"python -m {command}"
    assert helped["code"] == 0 and f"usage: {prog}" in helped["said"] and "default" in helped["said"]
    assert misspelt["code"] == 2 and "Unrecognized" in misspelt["said"] and "--ouut" in misspelt["said"]
    *_, said_of_value, said_of_folder = COMMANDS[command]
    assert wide["code"] == 2 and said_of_value in wide["said"]
    assert missing["code"] == 2 and said_of_folder in missing["said"] and "/no" in missing["said"]
    for answer in answers[command]:
        assert "Traceback" not in answer["said"]
        assert answer["heavy"] == []
