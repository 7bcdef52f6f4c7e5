"""A sample of `make faults`: some jobs are ended at some of their writes, on a disk and on an S3 server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import writes
from tests.faults.jobs import JOBS

ROOT = Path(__file__).resolve().parents[2]
JOBS_OF_RAY = {"benchmark", "build_index", "compact", "embed", "evaluate", "freeze", "group", "ingest", "publish"}
JOBS_OF_RAY |= {"adapt", "describe", "reconstruct", "train", "whiten"}


def test_a_job_that_is_ended_at_a_write_and_given_again_comes_out_equal() -> None:
    """A file that is whole and has no name yet, and the last moment: it is sealed, and not tidied."""
    words = ["ingest", "freeze", "--moments", "8", "-1"]
    command = [sys.executable, str(ROOT / "tests/faults/writes.py"), *words]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    told = re.findall(r"^(\w+) +(disk|s3) +(exit|error) +(\d+) of (\d+) equal", done.stdout, flags=re.MULTILINE)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert [line[3:] for line in told] == [("2", "2")] * 8, done.stdout


def test_a_result_that_differs_is_told_and_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The tool itself: a job that trusts what it finds under a name is found out, at the moment where it matters."""
    script = tmp_path / "broken.py"
    script.write_text(
        f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.faults import writes
from tests.faults.jobs import Case, JOBS

def twice(root, out):
    if out.exists("a"):  # and takes it for the work of both
        return
    out.write_bytes("a", b"1")
    out.write_bytes("b", b"2")

writes.prepare = lambda root, jobs: None
writes.forks.preload = lambda: None
JOBS["twice"] = Case(twice)
raise SystemExit(writes.main(["twice", "--stores", "disk", "--modes", "error"]))
"""
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"twice +disk +error +3 of 6 equal \(2 files, N = 6", done.stdout), done.stdout
    assert "at moment 3: these differ: ['b']" in done.stdout


def test_all_jobs_that_write_are_ended() -> None:
    assert set(JOBS) >= JOBS_OF_RAY
    with pytest.raises(SystemExit):
        writes.main(["embd"])
