"""Start the query service on a finished workspace, ask it with photos of its own, show one answer, and stop.

python -m serve.demo --workspace workspace/demo
"""

import hashlib
import json
import shutil
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from retrieval.artifacts.collection import read_catalog
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.published import read_current
from serve.__main__ import ServeConfig, running
from serve.ingress import free_port
from serve.schemas import Answer
from serve.settings import ServeArgs

_PAGE_PORT = 8000
_ASKED = 8  # photos


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryOnceConfig:
    """Serve a workspace, ask over HTTP, and stop."""

    workspace: str
    """Folder or URI that the pipeline wrote."""
    source: str = ""
    """Folder of the photos it was made from; some of its query photos are sent. Empty: those that the demo drew."""
    k: int = 5
    """How many results to show."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}, expected 1 or more.")


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo to ask with: its file, its name in the collection, and who it shows, if that is known."""

    path: Path
    image_id: str
    label: str | None


def main(cfg: QueryOnceConfig) -> Answer:
    """Returns the answer that is shown, without the photo that was asked with.

    Several photos are asked with, and how many have a right one first is said: one answer alone proves nothing. Shown
    is the first that is right, with the command that asks for it.

    Raises: ValueError if the workspace is not finished, or a photo to send is not in the source.
    """
    photos = query_photos(cfg)
    print(f"Starting the query service on {cfg.workspace} ...", flush=True)
    with running(ServeConfig(settings=ServeArgs(workspace=cfg.workspace), port=_free_port())) as service:
        url = f"{service}/search?k={cfg.k + 1}"  # one more than is shown: itself may be in the gallery
        asked = [(photo, without_itself(post(url, photo.path), photo, cfg.k)) for photo in photos]
        right = [one for one in asked if starts_right(*one)]
        photo = (right or asked)[0][0]
        answer = without_itself(ask(url, photo.path), photo, cfg.k)
    print(json.dumps(answer.model_dump(mode="json"), indent=2), flush=True)
    print(f"\n{what_it_means(photo, answer, len(right), len(asked))}", flush=True)
    return answer


def starts_right(photo: Photo, answer: Answer) -> bool:
    """Whether the nearest photo shows the same."""
    return photo.label is not None and answer.results[:1] != [] and answer.results[0].label == photo.label


def without_itself(answer: dict[str, Any], photo: Photo, k: int) -> Answer:
    """The answer's first k results that are not the photo which was asked with."""
    whole = Answer.model_validate(answer)
    others = [result for result in whole.results if result.image_id != photo.image_id][:k]
    ranked = [result.model_copy(update={"rank": rank}) for rank, result in enumerate(others, 1)]
    return whole.model_copy(update={"results": ranked})


def what_it_means(photo: Photo, answer: Answer, right: int, asked: int) -> str:
    """The answer in a few words."""
    k = len(answer.results)
    if photo.label is None:
        return f"The {k} nearest to {photo.image_id}. Nobody said who is on these photos, so nobody knows who is right."
    same = sum(result.label == photo.label for result in answer.results)
    counted = f"Asked with {asked} photo{'s' * (asked != 1)}: {right} found the same first."
    shown = "The first of those is shown" if right else "None does; the first is shown"
    return f"{counted} {shown}: {same} of its {k} nearest show the same, {photo.label}. The photo itself is left out."


def query_photos(cfg: QueryOnceConfig) -> list[Photo]:
    """The first query photos of the collection, of one person each, as files of the source; if nothing is labelled,
    photos of the gallery.

    Raises: ValueError if there is none, or it is not in the source.
    """
    collection = read_current(Folder.of(cfg.workspace))["collection"]
    wanted = ("image_id", "photo", "label", "part", "row")
    rows: list[dict[str, Any]] = read_catalog(collection, ("query",), wanted).slice(0, _ASKED).to_pylist()
    rows = rows or read_catalog(collection, ("gallery", "train"), wanted).slice(0, _ASKED).to_pylist()
    if not rows:
        raise ValueError(f"{collection} has no photos to ask with.")
    # The pipeline keeps the sets it drew side by side, with equal names for different photos.
    sources = [Path(cfg.source)] if cfg.source else sorted(Path(cfg.workspace).glob("photos/*"))
    hashes = {
        part: collection.read_table(f"images/{part_name(part)}", ["content_hash"])["content_hash"]
        for part in {row["part"] for row in rows}
    }
    return [_file_of(row, hashes[row["part"]][row["row"]].as_py(), sources, cfg.workspace) for row in rows]


def _file_of(row: dict[str, Any], content_hash: str, sources: list[Path], workspace: str) -> Photo:
    """`photo` is the file that a row's face is on, the row's own name where it is all of it."""
    for path in (source / row["photo"] for source in sources):
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == content_hash:
            return Photo(path, row["image_id"], row["label"])
    where = ", ".join(map(str, sources)) or f"{workspace}/photos"
    raise ValueError(
        f"There is no {row['photo']} in {where}. Name the folder that the collection was made from: --source."
    )


def ask(url: str, photo: Path) -> dict[str, Any]:
    """POST the photo with curl, or with Python where there is none, and show the command."""
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--data-binary", f"@{photo}", url]
    print(f"\n$ {' '.join(command)}", flush=True)
    if shutil.which("curl"):
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)
    print("(no curl here: sent by Python)", flush=True)
    return post(url, photo)


def post(url: str, photo: Path) -> dict[str, Any]:
    """POST the photo; the answer."""
    with urllib.request.urlopen(urllib.request.Request(url, data=photo.read_bytes()), timeout=120) as response:
        return json.loads(response.read())


def _free_port() -> int:
    """The page's usual port if nobody has it, else any."""
    try:
        return free_port(_PAGE_PORT)
    except OSError:
        return free_port()


if __name__ == "__main__":
    settings = tyro.cli(QueryOnceConfig, prog="python -m serve.demo", description=__doc__)
    try:
        main(settings)
    except ValueError as error:
        sys.stderr.write(f"\nserve.demo: {error}\n")
        raise SystemExit(2) from None
