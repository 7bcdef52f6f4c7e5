"""The house: which room may import which, where heavy libraries live, and that each module is named and tested.

`pytest tests/test_layering.py -s` prints the rooms and the arrows between them.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Each room of the library and the rooms it may import. Nothing else of ours is allowed.
MAY_IMPORT: dict[str, set[str]] = {
    "artifacts": set(),
    "images": set(),
    "data": {"artifacts", "images"},
    "models": {"artifacts", "images"},
    "geometry": {"artifacts", "images"},
    "search": {"artifacts", "geometry"},
    "evaluation": {"artifacts", "data", "search"},
    "training": {"artifacts", "images", "models", "evaluation"},
    "grouping": {"artifacts", "search"},
    "live": {"artifacts", "data", "search"},
    "reports": {"artifacts", "images", "geometry", "search", "evaluation"},
}
# The rooms of what jobs share, likewise; its modules that lie in none put them together.
RUNTIME_MAY_IMPORT: dict[str, set[str]] = {"news": set(), "tracking": {"news"}, "parallel": {"news"}}
SERVE_MAY_IMPORT = {"artifacts", "grouping", "images", "live", "models", "search"}

# What a module below a prefix must never import, at top level or inside a function.
FORBIDDEN = {
    "retrieval": {"ray", "mlflow", "fastapi", "starlette", "pydantic", "tyro", "ray_jobs", "serve", "tests"},
    "ray_jobs": {"serve", "tests", "fastapi", "starlette", "pydantic"},
    "serve": {"ray_jobs", "tests"},
}

# Heavy libraries, and the only places that may import each.
HOMES = {
    "faiss": {
        "retrieval.search.engines",
        "retrieval.geometry.vocabulary",
    },
    "pycolmap": {"retrieval.geometry.colmap"},
    "cv2": {"retrieval.images", "retrieval.data.demo", "retrieval.geometry.matching.planes"},
    "pi_heif": {"retrieval.images.pixels"},
    "onnxruntime": {"retrieval.models.engines"},
    "onnx": {"retrieval.models.engines"},
    "tokenizers": {"retrieval.models.text.tokens"},
    "mlflow": {"ray_jobs.runtime.tracking"},
    "tyro": {"ray_jobs", "serve"},
    "click": {"ray_jobs.runtime.news.screen"},
    "matplotlib": {"retrieval.reports"},
    "duckdb": {"retrieval.artifacts.node.scratch"},
    "pickle": {"retrieval.data.plain_pickle"},
    "joblib": set(),
}
HEAVY = ("torch", "torchvision", "ray", "mlflow", "faiss", "cv2", "pycolmap", "matplotlib", "onnx", "onnxruntime")

# A job imports no other job, but for these, which put several together.
COMPOSED = {"ray_jobs.compact", "ray_jobs.pipeline", "ray_jobs.evaluate", "ray_jobs.benchmark"}
NOT_JOBS = {"ray_jobs.runtime", "ray_jobs.presets"}
# Who may import the drawn photos.
DEMO_GUESTS = ("retrieval.data.demo", "ray_jobs.draw", "ray_jobs.presets")

# How a module ends that is found by looking through its folder: an index kind.
VARIANT = re.compile(r"^KIND = ", flags=re.MULTILINE)

# Rooms of serve/ that programs talk to by one name each: what they hand on is their own modules' and nothing else.
FRONTS = {"serve.schemas", "serve.client"}

MOST_LINES = 300
ROOM_SIZE = (4, 11)


def modules() -> dict[str, Path]:
    """Every module of ours, by dotted name; a package is its __init__."""
    files = [path for top in FORBIDDEN for path in sorted((ROOT / top).rglob("*.py"))]
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files)
    return dict(zip((name.removesuffix(".__init__") for name in names), files, strict=True))


MODULES = modules()


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


def room_of(name: str) -> str | None:
    """The room of the library that a dotted name lies in."""
    parts = name.split(".")
    return parts[1] if parts[0] == "retrieval" and len(parts) > 1 and parts[1] in MAY_IMPORT else None


def room_of_runtime(name: str) -> str | None:
    """The room of what jobs share that a dotted name lies in."""
    parts = name.split(".")
    return parts[2] if below(name, "ray_jobs.runtime") and parts[2:] and parts[2] in RUNTIME_MAY_IMPORT else None


def violations(source: str, module: str) -> list[str]:
    """Every import of `module` that the house forbids, as a sentence."""
    found = set()
    own = room_of(module)
    for name in imports(source, module):
        for prefix, never in FORBIDDEN.items():
            if below(module, prefix):
                found |= {f"{module} imports {top}, which {prefix}/ must not" for top in never if below(name, top)}
        for library, homes in HOMES.items():
            if below(name, library) and not any(below(module, home) for home in homes):
                found.add(f"{module} imports {library}, whose home is {sorted(homes) or 'nowhere'}")
        room = room_of(name)
        if own and room and room != own and room not in MAY_IMPORT[own]:
            found.add(f"{module} imports {name}, and {own}/ may import {sorted(MAY_IMPORT[own]) or 'no room'}")
        shared, uses = room_of_runtime(module), room_of_runtime(name)
        if shared and uses and uses != shared and uses not in RUNTIME_MAY_IMPORT[shared]:
            found.add(f"{module} imports {name}, and {shared}/ may import {sorted(RUNTIME_MAY_IMPORT[shared])}")
        if below(module, "serve") and room and room not in SERVE_MAY_IMPORT:
            found.add(f"{module} imports {name}, and serve/ may import {sorted(SERVE_MAY_IMPORT)}")
        if below(name, "retrieval.data.demo") and not any(below(module, guest) for guest in DEMO_GUESTS):
            found.add(f"{module} imports the drawn photos ({name}); only {DEMO_GUESTS[1:]} may")
        if module.endswith(".settings") and any(below(name, library) for library in HEAVY):
            found.add(f"{module} imports {name}; settings are read before anything heavy is loaded")
        if below(module, "ray_jobs.runtime") and below(name, "ray_jobs") and not below(name, "ray_jobs.runtime"):
            if name != "ray_jobs":
                found.add(f"{module} imports {name}; what jobs share imports no job")
        elif below(module, "ray_jobs") and below(name, "ray_jobs") and module not in COMPOSED:
            other = ".".join(name.split(".")[:2])
            if other not in {"ray_jobs", module} and other not in NOT_JOBS:
                found.add(f"{module} imports the job {other}; only {sorted(COMPOSED)} may")
    return sorted(found)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_the_right_way(module: str) -> None:
    assert violations(MODULES[module].read_text(), module) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("retrieval.training.losses", "import ray"),
        ("retrieval.training.losses", "def f():\n    from ray import train"),
        ("retrieval.training.losses", "from ...ray_jobs import session"),
        ("retrieval.training.losses", "import faiss"),
        ("retrieval.search.index", "import cv2.data"),
        ("retrieval.models.embedder", "import onnxruntime"),
        ("serve.engine.version", "def f():\n    import onnx.helper"),
        ("retrieval.models.bundle", "import pickle"),
        ("retrieval.models.settings", "import torch"),
        ("retrieval.models.settings", "def f():\n    import ray.data"),
        ("retrieval.images.pixels", "from retrieval.artifacts import folder"),
        ("retrieval.data.splits", "from retrieval.geometry.tuples import divide"),
        ("retrieval.training.tuple_recipe", "from retrieval.reports import sheets"),
        ("retrieval.models.network", "from retrieval import training"),
        ("retrieval.data.listing", "from retrieval.data.demo.places import write_scenes"),
        ("serve.app", "from retrieval.training import losses"),
        ("serve.app", "from ray_jobs.runtime import session"),
        ("ray_jobs.embed", "from ray_jobs.pipeline import main"),
        ("ray_jobs.embed", "from ray_jobs import pipeline"),
        ("ray_jobs.embed", "import mlflow"),
        ("ray_jobs.runtime.session", "from ray_jobs import pipeline"),
        ("ray_jobs.runtime.road", "from ray_jobs.presets import FACES"),
        ("ray_jobs.runtime.session", "import mlflow"),
        ("ray_jobs.runtime.news.screen", "from ray_jobs.runtime.parallel import parts"),
        ("ray_jobs.runtime.tracking.store", "from ray_jobs.runtime.parallel.parts import run_parts"),
    ],
)
def test_a_bad_import_is_found(module: str, source: str) -> None:
    assert len(violations(source, module)) >= 1


def test_good_imports_pass() -> None:
    assert violations("import torch\nfrom retrieval.artifacts import manifest", "retrieval.models.bundle") == []
    assert violations("import ray\nfrom ray_jobs.runtime.session import session\nimport tyro", "ray_jobs.embed") == []
    assert violations("from ray_jobs import ingest, embed, train", "ray_jobs.pipeline") == []
    assert violations("from retrieval.data.demo import faces", "retrieval.data.demo.portrait") == []


def arrows() -> dict[tuple[str, str], int]:
    """(room, room it imports) -> by how many modules."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for module, path in MODULES.items():
        own = room_of(module)
        for name in imports(path.read_text(), module):
            room = room_of(name)
            if own and room and room != own:
                found[own, room].add(module)
    return {arrow: len(by) for arrow, by in sorted(found.items())}


def rooms() -> dict[str, list[str]]:
    """Each room, and each floor below one (`data/demo`), with its modules; so of what jobs share, and its rooms."""
    found: dict[str, list[str]] = defaultdict(list)
    for module, path in MODULES.items():
        if (room_of(module) or below(module, "ray_jobs.runtime")) and path.name != "__init__.py":
            found["/".join(module.split(".")[1:-1])].append(module)
    return found


def test_the_arrows_are_those_of_the_table_and_go_round_in_no_circle() -> None:
    found = arrows()
    print()
    for name, inside in rooms().items():
        to = [f"{b} ({num})" for (a, b), num in found.items() if a == name]
        print(f"{name:15} {len(inside):2} modules" + (f"  imports {', '.join(to)}" if to else ""))
    print(f"{len(found)} arrows between {len(MAY_IMPORT)} rooms")
    unused = [(a, b) for a, allowed in MAY_IMPORT.items() for b in allowed if (a, b) not in found]
    assert unused == [], "the table allows what nothing needs"
    assert len(found) <= 25
    order: list[str] = []
    while len(order) < len(MAY_IMPORT):
        free = [room for room in MAY_IMPORT if room not in order and MAY_IMPORT[room] <= set(order)]
        assert free, f"a circle among {sorted(set(MAY_IMPORT) - set(order))}"
        order += free


def test_rooms_can_be_seen_at_a_glance() -> None:
    for name, inside in rooms().items():
        least = ROOM_SIZE[0] if "/" not in name or name.startswith("runtime/") else 1
        assert least <= len(inside) <= ROOM_SIZE[1], f"{name} has {len(inside)} modules"
    for module, path in MODULES.items():
        assert not module.endswith((".utils", ".common", ".helpers")), f"{module}: name it after what it does"
        lines = len(path.read_text().splitlines())
        assert lines <= MOST_LINES, f"{module} has outgrown {MOST_LINES} lines with {lines}: split it"


def packages() -> list[str]:
    return [name for name, path in MODULES.items() if path.name == "__init__.py" and name.count(".") >= 1]


@pytest.mark.parametrize("package", packages())
def test_a_room_says_what_is_in_it_and_imports_nothing(package: str) -> None:
    tree = ast.parse(MODULES[package].read_text())
    said = ast.get_docstring(tree) or ""
    rest = [ast.unparse(node) for node in tree.body[1:]]
    if package in FRONTS:
        rest = [line for line in rest if not line.startswith((f"from {package}.", "__all__ = "))]
    assert rest == [], f"{package}/__init__.py holds a docstring only"
    inside = [name.rpartition(".")[2] for name in MODULES if name.rpartition(".")[0] == package]
    named = re.findall(r"^(\w+) {2,}\S", said, flags=re.MULTILINE)
    # A variant says itself what it is: adding one is a file and its test.
    inside = [name for name in inside if name in named or not VARIANT.search(MODULES[f"{package}.{name}"].read_text())]
    assert sorted(named) == sorted(name for name in inside if f"{package}.{name}" not in packages())


def test_each_module_has_its_test() -> None:
    missing = []
    for module, path in MODULES.items():
        top, *rest = module.split(".")
        if path.name == "__init__.py" or top != "retrieval":
            continue
        test = ROOT / "tests/unit" / Path(*rest[:-1]) / f"test_{rest[-1]}.py"
        if not test.exists():
            missing.append(str(test.relative_to(ROOT)))
    assert missing == []


def test_each_test_is_of_a_module() -> None:
    for path in sorted((ROOT / "tests/unit").rglob("test_*.py")):
        place = path.relative_to(ROOT / "tests/unit")
        if place.parts[0] in MAY_IMPORT:
            room = ".".join(["retrieval", *place.parts[:-1]])
            words = path.stem.removeprefix("test_").split("_")  # of the module, and then of the topic
            names = [f"{room}.{'_'.join(words[:num])}" for num in range(len(words), 0, -1)]
            assert any(name in MODULES for name in names), f"{place} tests {names[0]}, which is not there"
