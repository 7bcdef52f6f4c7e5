"""The docs say what is so: links lead somewhere, commands exist, and every setting has its place.

That docs/reference is what --help prints is a part of `make check`: it takes a minute.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import io
import re
import shlex
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import tyro

from ray_jobs.presets import PRESETS
from ray_jobs.runtime.command import parse
from retrieval.reports.tables import BASELINES
from serve.__main__ import ServeConfig
from serve.settings import ServeArgs

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SOURCES = [path for room in ("retrieval", "ray_jobs", "serve") for path in sorted((ROOT / room).rglob("*.py"))]


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings: lower case, words joined by dashes."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def links(text: str) -> list[str]:
    """Targets of [text](target) and ![text](target) outside code."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", prose)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page.read_text()):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page_id(page)} links to {link}, which is not there"
        assert not anchor or anchor in headings(target), f"{page_id(page)} links to {link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_pages_are_plain_ascii_without_paths_of_one_machine(page: Path) -> None:
    text = page.read_text()
    assert [character for character in text if ord(character) > 127] == []
    assert not re.findall(r"(?<![\w.~])/(?:home|root|work|Users|tmp)/\w+", text)


def test_a_line_that_follows_a_table_is_not_drawn_as_a_row_of_it() -> None:
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        assert re.findall(r"^\|.*\n(?!\|)(.+)", prose, flags=re.MULTILINE) == [], f"{page_id(page)}: no empty line"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_exist(page: Path) -> None:
    text = page.read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for code in re.findall(r"```.*?```|`[^`\n]+`|^ {4}.+$", text, flags=re.DOTALL | re.MULTILINE):
        for target in re.findall(r"(?:^|`|&& )\s*make ([a-z]+)", code, flags=re.MULTILINE):
            assert target in targets, f"{page_id(page)}: no `make {target}`"
        for module in re.findall(r"python -m ((?:ray_jobs|serve|retrieval)\.[a-z]\w+)", code):
            assert (ROOT / Path(*module.split("."))).with_suffix(".py").exists(), f"{page_id(page)}: no {module}"
        for script in re.findall(r"python ((?:benchmarks|docs)/[\w/]+\.py)", code):
            assert (ROOT / script).exists(), f"{page_id(page)}: no {script}"


FILES = re.compile(
    r"(?<![\w/.])((?:benchmarks|cluster|docs|ray_jobs|retrieval|serve|tests)/[\w/.-]+\.(?:env|js|json|md|py|sh|toml|yaml))\b"
)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_files_and_variables_of_ours_that_are_named_are_there(page: Path) -> None:
    text = page.read_text()
    assert [name for name in FILES.findall(text) if not (ROOT / name).exists()] == []
    read = "".join(path.read_text() for path in [*SOURCES, ROOT / "tests/conftest.py"])
    assert [name for name in re.findall(r"\bRETRIEVAL_[A-Z_]+\b", text) if name not in read] == []


def code_of(text: str) -> list[str]:
    """The code of a page, or of a module's docstring: fenced and indented blocks and `spans`, a line a command."""
    blocks = re.findall(r"```\w*\n(.*?)```|((?:^ {4,}.*\n)+)|`([^`\n]+)`", text, flags=re.DOTALL | re.MULTILINE)
    joined = "\n".join(part for block in blocks for part in block if part)
    return re.sub(r"\\\n\s*", " ", joined).splitlines()


def commands(text: str) -> list[tuple[str, list[str]]]:
    """(job, arguments) of every `python -m ray_jobs.JOB ...` of a page."""
    found = []
    for line in code_of(text):
        if named := re.search(r"python -m ray_jobs\.([a-z_]+)((?:\s.*)?)$", line):
            found.append((named[1], shlex.split(named[2], comments=True)))
    return found


def refusal(job: str, arguments: list[str]) -> str:
    """What the job's own parser says against these arguments, if anything. `...` stands for what is missing."""
    name = f"ray_jobs.{job}"
    module = importlib.import_module(name)
    config = PRESETS if job == "pipeline" else getattr(module, module.main.__annotations__["cfg"])
    given = [argument for argument in arguments if argument != "..."]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parse(config, None, name, given)
    except SystemExit as ended:
        text = said.getvalue()
        incomplete = len(given) < len(arguments) and text.startswith("Missing from") and "Unrecognized" not in text
        return "" if ended.code in (0, None) or incomplete else text
    return ""


SAID = [
    *(page for page in PAGES if page.parent.name != "commands"),
    *(path for path in SOURCES if "ray_jobs" in path.parts),
]


@pytest.mark.parametrize("page", SAID, ids=page_id)
def test_every_command_line_is_one_that_its_job_takes(page: Path) -> None:
    text = page.read_text()
    if page.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    for job, arguments in commands(text):
        said = refusal(job, arguments)
        assert not said, f"{page_id(page)}: python -m ray_jobs.{job} {shlex.join(arguments)}\n{said}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_flags_that_are_named_exist_and_switches_take_no_value(page: Path) -> None:
    known = set()
    for reference in (ROOT / "docs/reference/commands").glob("*.md"):
        known |= set(re.findall(r"(?<![\w-])--[a-z][a-z0-9.-]*", reference.read_text()))
    others = {
        "--data-binary",
        "--help",
        "--check",
        "--require-hashes",
        "--allowed-hosts",
        "--artifacts-destination",
        "--backend-store-uri",
        "--no-wait",
    }
    for span in re.findall(r"`(--[a-z][^`\n]*)`", page.read_text()):
        flag, *values = span.removesuffix(".*").split()
        assert flag in known | others or any(each.startswith(f"{flag}.") for each in known), (
            f"{page_id(page)}: no job knows {flag}"
        )
        group, _, name = flag.removeprefix("--").rpartition(".")
        off = f"--{group}.no-{name}" if group else f"--no-{name}"
        assert off not in known or not values, f"{page_id(page)}: {flag} takes no value, its opposite is {off}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_settings_of_the_service_exist(page: Path) -> None:
    for line in code_of(page.read_text()):
        if named := re.search(r"serve run serve\.app:build_app((?: [a-z_]+=[^\s`]+)*)", line):
            settings = dict(part.split("=", 1) for part in named[1].split())
            if settings:  # else the command is only spoken of
                ServeArgs.model_validate(settings)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_service_is_started_with_settings_that_exist(page: Path) -> None:
    for line in code_of(page.read_text()):
        if named := re.search(r"python -m serve((?: --[^`#]*)?)$", line.partition("#")[0].rstrip()):
            given = shlex.split(named[1])
            if "--workspace" in given:
                tyro.cli(ServeConfig, args=given, config=(tyro.conf.OmitArgPrefixes,))


@pytest.mark.parametrize(
    ("job", "arguments", "what"),
    [
        ("train", "--collection C --out O --no-such-flag 3", "--no-such-flag"),
        ("train", "--collection C --out O --model.keep-aspect True", "True"),
        ("train", "... --siamese.loss other", "other"),
        ("train", "--collection C", "--out"),
        ("pipeline", "faces --scales 1.0", "--scales"),
    ],
)
def test_a_command_line_that_is_wrong_is_found(job: str, arguments: str, what: str) -> None:
    assert what in refusal(job, arguments.split())


def test_commands_are_found_wherever_they_stand() -> None:
    page = "Text `python -m ray_jobs.embed --a b`.\n\n    python -m ray_jobs.train --x 1 \\\n        --y 2  # why\n\n"
    page += "```bash\nray job submit --working-dir . -- python -m ray_jobs.ingest ...\n```\n"
    assert commands(page) == [("embed", ["--a", "b"]), ("train", ["--x", "1", "--y", "2"]), ("ingest", ["..."])]


def test_every_page_can_be_found_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = [(page.parent / link.partition("#")[0]).resolve() for link in links(page.read_text())]
        todo += [target for target in targets if target.suffix == ".md"]
    assert [page_id(page) for page in PAGES if page not in reached] == []


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_generate", ROOT / "docs/reference/generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def runnable(path: Path) -> bool:
    return '__name__ == "__main__"' in path.read_text()


def test_every_command_has_its_page(reference: ModuleType) -> None:
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES if runnable(path)}
    commands = {name.removesuffix(".__main__") for name in modules} - {
        "serve.photos.worker",
        "ray_jobs.runtime.parallel.witness",
    }  # no user starts these
    assert commands == set(reference.COMMANDS)


def config_fields() -> list[tuple[str, str]]:
    """(class, field) of every config dataclass of the jobs: what a user can set."""
    found = []
    for path in (ROOT / "ray_jobs").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
                found += [
                    (node.name, item.target.id)
                    for item in node.body
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
                ]
    return found


def test_every_setting_of_every_job_is_in_the_reference() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "docs/reference").rglob("*.md"))
    fields = config_fields()
    assert len(fields) > 30
    missing = [f"{owner}.{name}" for owner, name in fields if f"{name.replace('_', '-')}" not in text]
    assert missing == []


def undocumented_fields(path: Path) -> list[str]:
    """Fields of config dataclasses without the docstring that becomes their --help."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
            for item, after in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(item, ast.AnnAssign):
                    said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                    found += [] if said else [f"{path.name}: {node.name}.{ast.unparse(item.target)}"]
    return found


def test_every_setting_has_a_sentence() -> None:
    assert [name for path in SOURCES for name in undocumented_fields(path)] == []


def test_a_missing_sentence_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('class AConfig:\n    x: int = 1\n    """Said."""\n    y: int = 2\n')
    assert undocumented_fields(tmp_path / "a.py") == ["a.py: AConfig.y"]


def test_make_help_lists_every_target() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert phony is not None
    assert [name for name in phony[1].split() if f"make {name}" not in listed] == []


def metric_keys() -> set[str]:
    """Metric names as they stand in the code that measures: 'train/loss', and 'recall@' for f"recall@{k}"."""
    found = set()
    for path in [*(ROOT / "retrieval/evaluation").glob("*.py"), *(ROOT / "retrieval/training").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(re.findall(r"^(?:(?:train|val|seconds)/\w+|[a-z_]+@(?:10)?)$", node.value))
    return found


def test_every_metric_is_explained() -> None:
    keys = metric_keys()
    assert {"train/loss", "recall@", "oracle@", "query_seconds@"} <= keys
    page = (ROOT / "docs/reference/metrics.md").read_text()
    assert sorted(key for key in keys | {"mAP", *BASELINES} if f"`{key}" not in page) == []
