"""Who follows a document: a shell with a home and a clean copy of the project, and the commands one by one.

It must run where machines can be made (`own_hosts.enter`): there it may change what a home is.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.object_store import ObjectStore

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
JOBS = "http://127.0.0.1:8265"
"""Where `ray dashboard` opens the way to the job server."""


@dataclass
class Laptop:
    """Whoever submits: a home of its own, a clean copy of the project, and the environment of its shell."""

    folder: Path
    store: ObjectStore
    began: float = field(default_factory=time.monotonic)
    tunnels: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("home/.ssh", "home/.aws", "tmp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.home / ".ssh").chmod(0o700)
        # SSH takes the home of ~/.ssh from here, not from the environment.
        (self.folder / "passwd").write_text(f"root:x:0:0:root:{self.home}:/bin/bash\n")
        subprocess.run(["mount", "--bind", str(self.folder / "passwd"), "/etc/passwd"], check=True)
        copy = self.project
        for name in subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0"):
            if name and (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, copy / name)
        git = ("git", "-c", "user.name=laptop", "-c", "user.email=laptop@localhost")
        for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "As it is here")):
            subprocess.run([*git, *words], cwd=copy, check=True)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def project(self) -> Path:
        return self.folder / "retrieval"

    @property
    def env(self) -> dict[str, str]:
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_", "MLFLOW_"))}
        told = {"HOME": str(self.home), "TMPDIR": str(self.folder / "tmp"), "PATH": f"{BIN}:{os.environ['PATH']}"}
        ray = {"RAY_TMPDIR": str(self.folder / "tmp"), "RAY_AUTH_MODE": "token", "RAY_ADDRESS": JOBS}
        store = {name: self.store.environment[name] for name in ("AWS_ENDPOINT_URL", "AWS_REGION")}
        return keep | told | ray | store

    def run(self, command: str, within: float = 600) -> str:
        """A line of the documents, in the project's folder. Returns what it said; SystemExit if it fails."""
        began = time.monotonic()
        log = self.folder / "said.log"
        with log.open("a") as said:
            said.write(f"$ {command}\n")
            said.flush()
            start = said.tell()
            done = subprocess.run(
                shlex.split(command),
                cwd=self.project,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                timeout=within,
            )
        output = log.read_bytes()[start:].decode(errors="replace")
        seconds = time.monotonic() - began
        self.say(f"$ {command if len(command) < 200 else command[:160] + ' ...'}   [{seconds:.0f} s]")
        if done.returncode:
            raise SystemExit(f"{command} ended with {done.returncode}:\n{output[-6000:]}")
        return output

    def keep_open(self, command: str) -> None:
        """A line that is left running: a tunnel."""
        with (self.folder / "tunnels.log").open("ab") as log:
            self.tunnels.append(
                subprocess.Popen(
                    shlex.split(command),
                    cwd=self.project,
                    env=self.env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )
        self.say(f"$ {command} &")

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:5.0f} s  {what}", flush=True)


def wait_for(what: str, true: Callable[[], Any], within: float) -> Any:
    """The first value that is not false. Raises: SystemExit after `within` seconds."""
    end = time.monotonic() + within
    while not (found := true()):
        if time.monotonic() > end:
            raise SystemExit(f"after {within:g} s still not so: {what}")
        time.sleep(1)
    return found


def edit(path: Path, *changes: tuple[str, str]) -> None:
    """What a document asks its reader to put into a file. Raises: SystemExit where the file has no such place."""
    text = path.read_text()
    for old, new in changes:
        if len(re.findall(old, text, flags=re.MULTILINE)) != 1:
            raise SystemExit(f"{path.name}: {old} is not there once")
        text = re.sub(old, new, text, flags=re.MULTILINE)
    path.write_text(text)
