"""Copy a node's logs to storage while it lives, so that they are there when it is not.

    python ship_logs.py --to s3://BUCKET/logs/CLUSTER

Started once on every node. Each minute what grew or changed among the logs of Ray's session, those of jobs and of the
service among them, is put to TO/NODE/SESSION/...; the newest are the last minute's at most. It needs pyarrow and
nothing of this project, ends with Ray on the node, and stops nothing when storage fails: it says so, and tries again.
"""

from __future__ import annotations

import argparse
import logging
import socket
import time
from pathlib import Path

import pyarrow.fs as pafs

logger = logging.getLogger("ship_logs")

MOST_BYTES = 256 << 20
"""Of one file; of one that is longer only the end is kept."""


def changed(logs: Path, known: dict[str, tuple[int, int]]) -> list[Path]:
    """Files below `logs` that grew or changed since they were noted in `known`: name -> (bytes, time)."""
    found = []
    for path in sorted(logs.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        state = path.stat()
        if known.get(str(path)) != (state.st_size, state.st_mtime_ns):
            found.append(path)
    return found


def ship(logs: Path, storage: pafs.FileSystem, to: str, known: dict[str, tuple[int, int]]) -> int:
    """Copy what changed, and note it in `known`. A file that fails is tried the next time. Returns: files copied."""
    num = 0
    for path in changed(logs, known):
        try:
            state = path.stat()
            with path.open("rb") as file:
                file.seek(max(0, state.st_size - MOST_BYTES))
                data = file.read(MOST_BYTES)
            target = f"{to}/{path.relative_to(logs).as_posix()}"
            if isinstance(storage, pafs.LocalFileSystem):
                storage.create_dir(target.rpartition("/")[0], recursive=True)
            with storage.open_output_stream(target) as out:
                out.write(data)
        except OSError as error:
            logger.warning("%s was not copied: %s", path, error)
            continue
        known[str(path)] = (state.st_size, state.st_mtime_ns)
        num += 1
    return num


def ray_runs(session: Path) -> bool:
    """Whether Ray answers on this node in this session."""
    with socket.socket(socket.AF_UNIX) as asked:
        return asked.connect_ex(str(session / "sockets/raylet")) == 0


def main() -> None:
    """Until Ray, once seen, is gone; what it said last is copied after that."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", required=True, help="folder or URI")
    parser.add_argument("--sessions", default="/tmp/ray", help="Ray's temporary folder on this node")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two looks")
    parser.add_argument("--once", action="store_true", help="look once, and end")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    known: dict[str, tuple[int, int]] = {}
    seen = False
    while True:
        latest = Path(asked.sessions, "session_latest")
        runs = ray_runs(latest)
        try:
            if "://" in asked.to:
                storage, root = pafs.FileSystem.from_uri(asked.to)
            else:
                storage, root = pafs.LocalFileSystem(), str(Path(asked.to).absolute())
            session = latest.resolve()  # another after each `ray start`
            ship(session / "logs", storage, f"{root}/{socket.gethostname()}/{session.name}", known)
        except (OSError, ValueError) as error:  # no session yet, or storage that cannot be opened
            logger.warning("nothing was copied: %s", error)
        if asked.once or (seen and not runs):
            return
        seen = seen or runs
        time.sleep(asked.every)


if __name__ == "__main__":
    main()
