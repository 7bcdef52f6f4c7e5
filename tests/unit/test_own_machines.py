"""`make machines` itself: what it runs is what the documents say, and its machines share nothing but their network."""

from __future__ import annotations

import ast
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.laptop import edit
from tests.support.own_hosts import missing

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests/faults/own_machines.py"
PAGES = ("run/cluster.md", "run/deploy.md", "run/watch.md", "use/change-the-model.md")


def lines_of(script: Path) -> list[str]:
    """The command lines that a script runs, up to where it puts something in."""
    found = []
    for node in ast.walk(ast.parse(script.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("run", "keep_open")
        ):
            [line, *_] = node.args or [None]
            if isinstance(line, ast.JoinedStr) and isinstance(line.values[0], ast.Constant):
                line = line.values[0]
            if isinstance(line, ast.Constant):
                found.append(str(line.value).strip())
    return found


def test_what_is_run_is_what_the_documents_say() -> None:
    told = "\n".join((ROOT / "docs/how-to" / page).read_text() for page in PAGES)
    lines = lines_of(SCRIPT)
    assert {line.partition(" ")[0] for line in lines} == {"git", "ray", "serve", "python"}
    assert {"ray up", "ray down"} <= {" ".join(line.split()[:2]) for line in lines}
    untold = [line for line in lines if line.replace(" -y ", " ") not in told]
    assert untold == []


def test_a_place_that_a_document_speaks_of_must_be_in_the_file_once(tmp_path: Path) -> None:
    file = tmp_path / "a.env"
    file.write_text("LOGS=here\n# REGION=x\n")
    edit(file, (r"^LOGS=.*", "LOGS=there"), (r"^# REGION=.*", "REGION=y"))
    assert file.read_text() == "LOGS=there\nREGION=y\n"
    for absent in (r"^NONE=.*", r"^\w+=.*"):
        with pytest.raises(SystemExit, match=re.escape("is not there once")):
            edit(file, (absent, ""))


TRY = """
import sys, tempfile, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.support.own_hosts import enter, network
enter()
with tempfile.TemporaryDirectory(prefix="oh-", dir="/tmp") as folder:
    names = {"a": "10.0.0.1", "b": "10.0.0.2"}
    with network(Path(folder), "10.0.0.254", names, Path(folder, "key"), "export KNOWN=1\\n") as hosts:
        a, b = hosts.values()
        for host in (a, b):
            code, said = host.says("touch /tmp/of-$(hostname); echo $(whoami; hostname; hostname -I) $KNOWN /tmp/*")
            print(code, said)
        print("b from a", a.says("echo > /dev/tcp/10.0.0.2/22")[0])
        print("a way out", a.says(f"echo > /dev/tcp/127.0.0.1/{sys.argv[2]}")[0])
        a.says("nohup sleep 987 > /dev/null 2>&1 < /dev/null &")
        until = time.monotonic() + 60
        while "sleep 987" not in a.processes().values() and time.monotonic() < until:
            time.sleep(0.1)
        print("runs", *["sleep 987" in host.processes().values() for host in (a, b)])
        b.switch_off()
        print("b is off", a.says("timeout 2 bash -c 'echo > /dev/tcp/10.0.0.2/22'")[0] != 0, b.processes())
"""


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_machines_have_a_network_and_nothing_else_in_common(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        script = tmp_path / "try.py"
        script.write_text(TRY)
        command = [sys.executable, str(script), str(ROOT), str(ours.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.stdout.splitlines() == [
        "0 ubuntu a 10.0.0.1 1 /tmp/of-a",
        "0 ubuntu b 10.0.0.2 1 /tmp/of-b",
        "b from a 0",
        "a way out 1",
        "runs True False",
        "b is off True {}",
    ], done.stdout + done.stderr
    commands = [entry.read_bytes() for entry in Path("/proc").glob("[0-9]*/cmdline") if entry.exists()]
    assert b"sleep\x00987\x00" not in commands, "all that ran there ended"
