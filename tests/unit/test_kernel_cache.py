"""Photos of many shapes find the kernels that oneDNN made for their shape before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_TWICE_THROUGH_500_SHAPES = """
import retrieval, torch
conv = torch.nn.Conv2d(16, 16, 3)
with torch.no_grad():
    for height in [*range(40, 540)] * 2:
        conv(torch.zeros(1, 16, height, 40))
"""


def test_kernels_of_many_shapes_are_kept() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ONEDNN", "DNNL"))}
    told = subprocess.run(
        [sys.executable, "-c", _TWICE_THROUGH_500_SHAPES],
        env=environment | {"ONEDNN_VERBOSE": "profile_create"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    made, found = told.count("create:cache_miss"), told.count("create:cache_hit")
    assert made > 1024  # more than are kept by default: input and output are reordered too
    assert found >= made - 1  # each is found on the second way; the weight's reorder has one shape, found on the first
