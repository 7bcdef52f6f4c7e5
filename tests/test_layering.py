"""Arrows point one way: serve -> retrieval <- ray_jobs. Checked by walking every import of every module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What a module below a prefix must never import, at top level or inside a function.
FORBIDDEN = {
    "retrieval": {"ray", "mlflow", "fastapi", "starlette", "pydantic", "tyro", "ray_jobs", "serve", "tests"},
    "ray_jobs": {"serve", "tests", "fastapi", "starlette", "pydantic"},
    "serve": {"ray_jobs", "tests"},
}

# Heavy libraries, and the only modules that may import each.
HOMES = {
    "faiss": {"retrieval.index", "retrieval.vectors", "retrieval.vocabulary"},
    "pycolmap": {"retrieval.sfm"},
    # The demo source draws with it.
    "cv2": {
        "retrieval.images",
        "retrieval.faces",
        "retrieval.demo_drawing",
        "retrieval.demo_features",
        "retrieval.demo_render",
    },
    "mlflow": {"ray_jobs.tracking", "serve.registry"},
    "tyro": {"ray_jobs", "serve"},
    "matplotlib": {"retrieval.report", "ray_jobs.tracking"},
    "pickle": {"retrieval.ground_truth"},
    "joblib": set(),
}

ROOMS = ("retrieval", "ray_jobs", "serve")

# A job imports no other job; these are not jobs, and `pipeline` calls them all in order.
SHARED_BY_JOBS = {"ray_jobs.session", "ray_jobs.parts", "ray_jobs.tracking", "ray_jobs.presets"}


def imports(source: str, module: str) -> Iterator[str]:
    """Full dotted names of everything `source` imports; `from a.b import c` gives both a.b and a.b.c."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def violations(source: str, module: str) -> list[str]:
    """Every import of `module` that points the wrong way, as a sentence."""
    found = set()
    for name in imports(source, module):
        for prefix, never in FORBIDDEN.items():
            if below(module, prefix):
                found |= {f"{module} imports {top}, which {prefix}/ must not" for top in never if below(name, top)}
        for library, homes in HOMES.items():
            if below(name, library) and not any(below(module, home) for home in homes):
                found.add(f"{module} imports {library}, whose home is {sorted(homes) or 'nowhere'}")
        if below(module, "ray_jobs") and below(name, "ray_jobs") and module != "ray_jobs.pipeline":
            other = ".".join(name.split(".")[:2])
            if other not in {"ray_jobs", module} and other not in SHARED_BY_JOBS:
                found.add(f"{module} imports the job {other}; only ray_jobs.pipeline may")
        if module in SHARED_BY_JOBS and below(name, "ray_jobs.pipeline"):
            found.add(f"{module} imports ray_jobs.pipeline")
    return sorted(found)


def modules() -> list[tuple[str, Path]]:
    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    return [(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path) for path in files]


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_the_right_way(module: str, path: Path) -> None:
    assert violations(path.read_text(), module) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("retrieval.losses", "import ray"),
        ("retrieval.losses", "def f():\n    from ray import train"),
        ("retrieval.losses", "from ..ray_jobs import session"),
        ("retrieval.losses", "import faiss"),
        ("retrieval.index", "import cv2.data"),
        ("ray_jobs.embed", "from ray_jobs.pipeline import main"),
        ("ray_jobs.embed", "from ray_jobs import pipeline"),
        ("ray_jobs.session", "from . import pipeline"),
        ("ray_jobs.embed", "import mlflow"),
        ("serve.app", "from ray_jobs import session"),
        ("retrieval.model", "import pickle"),
    ],
)
def test_a_bad_import_is_found(module: str, source: str) -> None:
    assert len(violations(source, module)) >= 1


def test_good_imports_pass() -> None:
    assert violations("import torch\nfrom retrieval import artifacts", "retrieval.model") == []
    assert violations("import ray\nfrom ray_jobs.session import session\nimport tyro", "ray_jobs.embed") == []
    assert violations("from ray_jobs import session, embed, train", "ray_jobs.pipeline") == []


def test_modules_stay_small_and_nothing_is_called_utils() -> None:
    for module, path in modules():
        assert not module.endswith((".utils", ".common", ".helpers")), f"{module}: name it after what it does"
        assert len(path.read_text().splitlines()) <= 400, f"{module} has outgrown 400 lines: split it"
