"""One node and three make the same bytes, and a node that lacks bfloat16 makes no mixed gallery: tests/faults/equal.py,
a part of which runs here, in a process of its own, since this one is a driver of another cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_more_nodes_make_the_same_bytes_and_unlike_nodes_one_format() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "tests/faults/equal.py", "--sample"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert (found := re.search(r"one node and three: (\d+) files of embeddings and indexes equal", done.stdout))
    assert int(found[1]) == 6 + 3 * (3 + 1) + 2, "parts; shards and ids of three indexes, two that shards start from"
    assert "which made two parts of it: all in float32" in done.stdout
