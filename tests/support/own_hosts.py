"""Machines of one's own on one host: each a set of Linux namespaces with an SSH server in it.

Each has processes, an address, a name, a user, a home, a /tmp and a /dev/shm of its own, on a network that ends at this
host: nothing outside reaches it and it reaches nothing outside; `ray stop` finds no process but its own, and ports that
a file fixes are free. Nobody needs to be root. All of it ends when the program that made it does.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

USER = "ubuntu"
"""Of every machine. It may do what the user who runs this may, and has no other rights."""

HOME = "/mnt"
"""Of that user, in a machine."""

_PROGRAMS = {"sshd": "openssh-server", "ssh": "openssh-client", "rsync": "rsync", "ip": "iproute2", "git": "git"}
"""Program -> the Debian package that brings it."""

_INSIDE = "RETRIEVAL_OWN_HOSTS"
_OF_ALL = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--uts", "--fork", "--kill-child")
_OF_ONE = ("unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

_START = r"""
set -euo pipefail
folder=$1 name=$2 address=$3 gateway=$4 sshd=$5
read -r _  # until its end of the cable is there
hostname "$name"
ip link set lo up
ip link set "to-$name" name eth0
ip address add "$address/24" dev eth0
ip link set eth0 up
ip route add default via "$gateway"
echo 22 > /proc/sys/net/ipv4/ip_unprivileged_port_start
for file in "$folder"/etc/*; do mount --bind "$file" "/etc/${file##*/}"; done
mount -t devpts devpts /dev/pts -o newinstance,ptmxmode=0666,mode=620
mount --bind /dev/pts/ptmx /dev/ptmx
mount -t tmpfs tmpfs /dev/shm
mount --bind "$folder/home" /mnt
mount --bind "$folder/tmp" /tmp  # the last: from here on the folder may be out of sight
exec unshare --user --map-user=1000 --map-group=1000 "$sshd" -D -e -f /mnt/.sshd/config
"""

_SSHD = f"""
HostKey {HOME}/.sshd/key
AuthorizedKeysFile {HOME}/.ssh/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
"""


def missing() -> str | None:
    """What this host lacks, with the command that mends it; None if nothing."""
    packages = sorted({package for program, package in _PROGRAMS.items() if not shutil.which(program, path=_PATH)})
    if packages:
        return f"Some programs are missing. Install them: apt-get install {' '.join(packages)}"
    if shutil.which("unshare") is None:
        return "unshare is missing. Install it: apt-get install util-linux"
    tried = subprocess.run([*_OF_ALL, "--mount-proc", "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return (
            f"This system lets nobody make namespaces ({tried.stderr.strip()}). As root: "
            f"sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0, each if known."
        )
    return None


def enter() -> None:
    """Start this program again where it may make machines, unless it is there. What it starts then ends with it."""
    if _INSIDE in os.environ:
        return
    os.environ[_INSIDE] = str(os.getpid())
    os.execvp("unshare", [*_OF_ALL, "--mount-proc", sys.executable, *sys.orig_argv[1:]])


@dataclass(frozen=True, slots=True)
class Host:
    """One machine. folder: what it keeps, as this host sees it (`home`, `tmp`, `etc`, `sshd.log`). key: opens it."""

    name: str
    address: str
    folder: Path
    key: Path
    process: subprocess.Popen[bytes]

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def ssh(self, *more: str) -> list[str]:
        """The client, with the key and more words, without notes of whom it met."""
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
        asked = [word for option in options for word in ("-o", option)]
        return ["ssh", "-i", str(self.key), *asked, *more, f"{USER}@{self.address}"]

    def says(self, line: str) -> tuple[int, str]:
        """Exit code and output of a line of shell, with what `.bashrc` says, by the user of the machine."""
        command = [*self.ssh(), f"bash --login -c -i {shlex.quote(line)} 2>/dev/null"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.strip()

    def processes(self) -> dict[int, str]:
        """Pid -> command of every process of it that has a command line, SSH's apart."""
        space, found = self._space(), {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if (entry / "ns/pid").readlink() == space:
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    if words and not words.startswith(("sshd", "/usr/sbin/sshd")):
                        found[int(entry.name)] = words
            except OSError:  # it ended while we looked
                continue
        return found

    def _space(self) -> Path | None:
        """Its namespace of processes."""
        try:
            return Path(f"/proc/{self.process.pid}/ns/pid_for_children").readlink()
        except OSError:
            return None

    def switch_off(self) -> None:
        """As if its plug were pulled."""
        self.process.kill()
        self.process.wait()


@contextmanager
def network(folder: Path, gateway: str, hosts: Mapping[str, str], key: Path, profile: str) -> Iterator[dict[str, Host]]:
    """Machines on a network of their own, on which this program has the address `gateway`.

    Args:
        folder: for what they keep.   hosts: name -> address, all of one /24.   key: the private key that opens them,
        made here.   profile: lines of shell for the `.bashrc` of their user.
    """
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    for words in ("set lo up", "add lan type bridge", "set lan up"):
        _ip("link", *words.split())
    _ip("address", "add", f"{gateway}/24", "dev", "lan")
    with ExitStack() as stack:
        made = {}
        for name, address in hosts.items():
            made[name] = _start(folder / name, name, address, gateway, key, profile)
            stack.callback(made[name].switch_off)
        yield made


def _start(folder: Path, name: str, address: str, gateway: str, key: Path, profile: str) -> Host:
    for inner in ("home/.ssh", "home/.sshd", "tmp", "etc"):
        (folder / inner).mkdir(parents=True)
    (folder / "tmp").chmod(0o1777)
    (folder / "home/.bashrc").write_text(profile)
    (folder / "home/.sshd/config").write_text(_SSHD)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "home/.sshd/key")], check=True)
    shutil.copy(f"{key}.pub", folder / "home/.ssh/authorized_keys")
    (folder / "etc/passwd").write_text(f"root:x:0:0:root:/root:/bin/bash\n{USER}:x:1000:1000:{USER}:{HOME}:/bin/bash\n")
    (folder / "etc/group").write_text(f"root:x:0:\n{USER}:x:1000:\n")
    (folder / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")  # as Debian's installer does
    if Path("/etc/resolv.conf").exists():
        (folder / "etc/resolv.conf").write_text("")  # nobody is asked for other names, so nobody waits for an answer
    _ip("link", "add", f"of-{name}", "type", "veth", "peer", "name", f"to-{name}")
    _ip("link", "set", f"of-{name}", "master", "lan", "up")
    sshd = shutil.which("sshd", path=_PATH)
    assert sshd is not None
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen(
            [*_OF_ONE, "bash", "-c", _START, "_", str(folder), name, address, gateway, sshd],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    ours = Path("/proc/self/ns/net").readlink()
    _until(lambda: Path(f"/proc/{process.pid}/ns/net").readlink() != ours, process, folder)
    _ip("link", "set", f"to-{name}", "netns", str(process.pid))
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.close()
    _until(lambda: b"Server listening" in (folder / "sshd.log").read_bytes(), process, folder)
    return Host(name, address, folder, key, process)


def _until(true: Callable[[], bool], process: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + 180
    while not true():
        assert process.poll() is None and time.monotonic() < end, (folder / "sshd.log").read_text()
        time.sleep(0.05)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, env={**os.environ, "PATH": _PATH})
