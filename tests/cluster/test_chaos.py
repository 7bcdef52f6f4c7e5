"""A sample of `make chaos`: a job whose driver, a worker and a raylet are killed on a cluster of three nodes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.faults.chaos import KINDS, NAMES, ROADS, volleys
from tests.faults.head import told

ROOT = Path(__file__).resolve().parents[2]
DEATHS = KINDS[:3]


def test_a_job_that_loses_driver_worker_and_raylet_comes_out_equal() -> None:
    """The cluster is the script's own, and so is its token."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    words = ["--jobs", "ingest", "--rounds", "3", "--seed", "1"]
    command = [sys.executable, str(ROOT / "tests/faults/chaos.py"), *words]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    kills = re.findall(r"^seed 1 ingest +run +\d+ (\w+) +at +[\d.]+ s of [\d.]+: .+; equal, cost", done.stdout, re.M)
    assert sorted(kills) == sorted(DEATHS), done.stdout


def test_pipelines_are_killed_in_each_way_and_jobs_in_all_ways_in_turn() -> None:
    of_roads = Counter(kind for road in ROADS for run in volleys(road, DEATHS, 5) for kind in run)
    assert of_roads == dict.fromkeys(DEATHS, 10)
    of_jobs = {name: volleys(name, DEATHS, 5) for name in NAMES if name not in ROADS}
    assert all(sum(map(len, runs)) == 5 for runs in of_jobs.values())
    assert all(len(set(run)) == len(run) for run in of_jobs["embed"] + of_jobs["train"])
    assert {kind for run in of_jobs["publish"] for kind in run} == {"driver"}, "it has no worker"
    counts = Counter(kind for runs in of_jobs.values() for run in runs for kind in run)
    assert min(counts.values()) >= 15


def test_what_the_service_did_while_the_head_was_away_is_told() -> None:
    starting, silent, late = [(0.0, False)], [(2.0, False), (3.0, False)], [(9.0, True), (9.5, True)]
    assert told([*starting, (1.0, True), *silent, *late]) == (2, 8.0)
    assert told([*starting, (1.0, True)]) == (0, 0.0)
