"""Write docs/reference/commands/<job>.md from each job's --help, or check with --check that they are up to date.

python docs/reference/generate.py [--check]
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent / "commands"

# Module -> what stands between its name and --help. One page a module.
COMMANDS: dict[str, list[list[str]]] = {
    "ray_jobs.pipeline": [[], ["faces"], ["landmarks"]],  # the other presets have the same flags with other defaults
    "ray_jobs.ingest": [[]],
    "ray_jobs.reconstruct": [[]],
    "ray_jobs.describe": [[]],
    "ray_jobs.weights": [[]],
    "ray_jobs.freeze": [[]],
    "ray_jobs.train": [[]],
    "ray_jobs.whiten": [[]],
    "ray_jobs.adapt": [[]],
    "ray_jobs.embed": [[]],
    "ray_jobs.build_index": [[]],
    "ray_jobs.group": [[]],
    "ray_jobs.compact": [[]],
    "ray_jobs.evaluate": [[]],
    "ray_jobs.benchmark": [[]],
    "ray_jobs.verify": [[]],
    "ray_jobs.publish": [[]],
    "ray_jobs.agreement": [[]],
    "ray_jobs.snapshot": [[]],
    "ray_jobs.status": [[]],
    "serve": [[]],
    "serve.demo": [[]],
    "serve.mcp": [[]],
    "serve.keys": [["create"], ["list"], ["revoke"]],
}
HEADER = "<!-- Written by `make reference` from --help. Do not edit. -->"


def help_text(module: str, arguments: list[str]) -> str:
    """What `python -m MODULE ARGUMENTS --help` prints at 100 columns, without colour, frames or trailing blanks."""
    env = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", module, *arguments, "--help"]
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True)
    if done.returncode != 0:
        raise ValueError(f"`{' '.join(command[1:])}` failed with {done.returncode}:\n{done.stderr[-2000:]}")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    plain = plain.replace(str(ROOT / Path(*module.split("."))) + ".py", f"python -m {module}")
    return "\n".join(unframed(line) for line in plain.strip().splitlines())


def unframed(line: str) -> str:
    """A line of --help without the box drawn round it: a box's top becomes its title, other borders empty lines."""
    if re.match("^[\u256d\u2570\u2502] ?[\u2500 ]", line) and "\u2500\u2500" in line:
        title = line.strip("\u256d\u256e\u2570\u256f\u2502\u2500 ")
        return f"{title}:" if title else ""
    return line.removeprefix("\u2502").removesuffix("\u2502").replace("\u2022", "-").rstrip()


def page(module: str) -> str:
    """The whole reference page of one command."""
    parts = [f"# python -m {module}", HEADER]
    for arguments in COMMANDS[module]:
        if arguments:
            parts.append(f"## {' '.join(arguments)}")
        parts.append(f"```text\n{help_text(module, arguments)}\n```")
    return "\n\n".join(parts) + "\n"


def pages() -> dict[Path, str]:
    """File -> its text, for every command. Two at a time: most of it is the import of torch and ray."""
    with ThreadPoolExecutor(2) as pool:
        texts = pool.map(page, COMMANDS)
        return {HERE / f"{module.rpartition('.')[2]}.md": text for module, text in zip(COMMANDS, texts, strict=True)}


def outdated() -> list[str]:
    """Names of the pages that differ from what --help says now."""
    return [path.name for path, text in pages().items() if not path.exists() or path.read_text() != text]


def main() -> None:
    if "--check" in sys.argv[1:]:
        if names := outdated():
            sys.exit(f"docs/reference/commands is out of date: {', '.join(names)}. Run `make reference` and commit it.")
        return
    for path, text in pages().items():
        path.write_text(text)
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
