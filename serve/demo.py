"""Start the query service on a finished workspace, ask it one question with curl, show the answer, and stop.

python -m serve.demo --workspace workspace/demo
"""

import hashlib
import json
import logging
import shutil
import socket
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
from serve.schemas import Answer, ServeArgs

logger = logging.getLogger(__name__)
_PAGE_PORT = 8000


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryOnceConfig:
    """Serve a workspace, ask one question over HTTP, and stop."""

    workspace: str
    """Folder or URI that the pipeline wrote."""
    source: str = ""
    """Folder of the photos it was made from; one of the query photos is sent. Empty: those that the demo drew."""
    k: int = 5
    """How many results to ask for."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}, expected 1 or more.")


def main(cfg: QueryOnceConfig) -> Answer:
    """Returns the answer, which is also printed.

    Raises: ValueError if the workspace is not finished, or the photo to send is not in the source.
    """
    photo, label = query_photo(cfg)
    import ray  # only now: a workspace that is not there is answered at once
    from ray import serve

    from serve.app import build_app

    ours = not ray.is_initialized()
    _hush()
    if ours:
        ray.init(include_dashboard=False, logging_level=logging.WARNING, log_to_driver=False)
    try:
        port = _free_port()
        print(f"Starting the query service on {cfg.workspace} ...", flush=True)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(build_app(ServeArgs(workspace=cfg.workspace)))
        answer = Answer.model_validate(ask(f"http://127.0.0.1:{port}/search?k={cfg.k}", photo))
    finally:
        # Our own Ray ends with everything on it; in a caller's, only the service ends.
        (ray.shutdown if ours else serve.shutdown)()
    right = sum(result.label == label for result in answer.results)
    print(f"{right} of the {len(answer.results)} nearest show the same, {label}.", flush=True)
    return answer


def query_photo(cfg: QueryOnceConfig) -> tuple[Path, str]:
    """The first query photo of the collection, as a file of the source, and who it shows."""
    collection = read_current(Folder.of(cfg.workspace))["collection"]
    queries: list[dict[str, Any]] = read_catalog(collection, ("query",)).to_pylist()
    if not queries:
        raise ValueError(f"{collection} has no query photos: its source has no labels. Nothing to ask with.")
    image_id, part = queries[0]["image_id"], part_name(queries[0]["part"])
    hashes = collection.read_table(f"images/{part}", ["content_hash"])["content_hash"]
    wanted = hashes[queries[0]["row"]].as_py()
    # The pipeline keeps the sets it drew side by side, with equal names for different photos.
    sources = [Path(cfg.source)] if cfg.source else sorted(Path(cfg.workspace).glob("photos/*"))
    for photo in (source / image_id for source in sources):
        if photo.is_file() and hashlib.sha256(photo.read_bytes()).hexdigest() == wanted:
            return photo, queries[0]["label"]
    where = ", ".join(map(str, sources)) or f"{cfg.workspace}/photos"
    raise ValueError(f"There is no {image_id} in {where}. Name the folder that the collection was made from: --source.")


def ask(url: str, photo: Path) -> dict[str, Any]:
    """POST the photo with curl, or with Python where there is none, and show both command and answer."""
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--data-binary", f"@{photo}", url]
    print(f"\n$ {' '.join(command)}", flush=True)
    if shutil.which("curl"):
        body = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    else:
        print("(no curl here: sent by Python)", flush=True)
        with urllib.request.urlopen(urllib.request.Request(url, data=photo.read_bytes()), timeout=120) as response:
            body = response.read().decode()
    answer = json.loads(body)
    print(json.dumps(answer, indent=2), flush=True)
    return answer


def _hush() -> None:
    """Ray's and Serve's start-up notices stay off the screen, their warnings and errors do not."""
    logging.getLogger("ray.serve").addFilter(_is_shown)
    for handler in logging.getLogger("ray").handlers:
        if type(handler).__module__.partition(".")[0] in ("logging", "ray"):  # not a caller's own
            handler.addFilter(_is_shown)


def _is_shown(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING and "Token authentication is enabled" not in record.getMessage()


def _free_port() -> int:
    """The page's usual port if nobody has it, else any."""
    for port in (_PAGE_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise OSError("No free port on 127.0.0.1.")


if __name__ == "__main__":
    settings = tyro.cli(QueryOnceConfig, prog="python -m serve.demo", description=__doc__)
    try:
        main(settings)
    except ValueError as error:
        sys.stderr.write(f"\nserve.demo: {error}\n")
        raise SystemExit(2) from None
