"""The service is put together without loading what it does not need, and its deployments are sized as asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

LOADED = """
import importlib, json, sys
told = {}
for name in ("serve.ingress", "serve.index_shard", "serve.app"):
    importlib.import_module(name)
    tops = {module.partition(".")[0] for module in sys.modules}
    rooms = {module.split(".")[1] for module in sys.modules if module.startswith("retrieval.")}
    told[name] = sorted(tops), sorted(rooms)
print(json.dumps(told))
"""


def test_the_service_loads_only_what_it_needs() -> None:
    """Each replica imports the module of its class: the door neither PyTorch nor FAISS, the index no PyTorch."""
    command = [sys.executable, "-W", "ignore", "-c", LOADED]
    answer = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    told = {name: (set(tops), set(rooms)) for name, (tops, rooms) in json.loads(answer.stdout).items()}
    never = {"pycolmap", "matplotlib", "mlflow", "ray_jobs", "tyro", "sklearn"}
    for name, (tops, rooms) in told.items():
        assert not tops & never, name
        assert rooms <= {"artifacts", "images", "models", "search"}, name
    assert not told["serve.ingress"][0] & {"torch", "faiss", "cv2"}
    assert not told["serve.index_shard"][0] & {"torch", "cv2"}
    assert {"torch", "faiss", "cv2"} <= told["serve.app"][0]
