"""Every curl line of the docs is run against a whole service, as somebody would paste it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from serve import keys
from serve.client import Client
from tests.support.listening import listening
from tests.support.workspace import make_workspace
from tests.unit.serve.routes.test_people import group

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*(ROOT / "docs/how-to/use").glob("*.md"), ROOT / "docs/reference/http.md"])
SAID = [
    (f"{page.stem}: {line.strip()}", line.strip())
    for page in PAGES
    for line in page.read_text().splitlines()
    if re.match(r"\s{4,}curl |curl ", line)
]
OF_OTHERS = re.compile(r'box=|rerank=|"text":')
"""What a gallery of faces refuses in a sentence; test_words asks with words where they are taken."""


@dataclass(frozen=True, slots=True)
class At:
    """Where the lines are run. folder: holds the photos that they name."""

    address: str
    folder: Path
    key: str
    member: str
    """An image of person 1."""


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[At]:
    assert shutil.which("curl"), "The documents' lines are run as they stand. Install curl."
    made = make_workspace(tmp_path_factory.mktemp("curl"))
    group(made)
    key = keys.create(Folder.of(made.folder), "docs", "admin")
    folder = tmp_path_factory.mktemp("photos")
    photos = list(made.photos.values())
    names = {name for _, line in SAID for name in re.findall(r"@([\w./-]+)", line)}
    for number, name in enumerate(sorted(names)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(photos[number % len(photos)].read_bytes() + b"\0" * number)
    with listening(workspace=str(made.folder)) as service:
        with Client(service.address, key=key) as client:
            member = client.person(1).images[0].image_id
        yield At(service.address, folder, key, member)


def test_there_are_lines() -> None:
    assert len(SAID) >= 12


@pytest.mark.parametrize("line", [line for _, line in SAID], ids=[name for name, _ in SAID])
def test_a_line_is_answered(at: At, line: str) -> None:
    asked = line.replace("http://127.0.0.1:8000", at.address)
    if "/split" in line:
        asked = re.sub(r'\["[^"]+"\]', f'["{at.member}"]', asked)
    asked = asked.replace("curl ", f"curl -sS -o answer -w '%{{http_code}}' -H 'x-api-key: {at.key}' ", 1)
    env = {**os.environ, "KEY": at.key, "no_proxy": "*"}
    done = subprocess.run(["sh", "-c", asked], cwd=at.folder, env=env, capture_output=True, text=True, check=True)
    answer = (at.folder / "answer").read_bytes()
    expected = ["200", "201"]
    if OF_OTHERS.search(line):
        expected = ["422"]
    elif "previous" in line:  # this workspace was published once
        expected = ["404"]
    assert done.stdout in expected, answer[:500]
