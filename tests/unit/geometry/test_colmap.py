"""pycolmap is imported without the signal handlers that it leaves behind."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

_CODE = """
import faulthandler, os, signal, sys
{before}
{imported}
os.kill(os.getpid(), signal.{name})
"""


def ended(name: str, imported: str, before: str = "") -> subprocess.CompletedProcess[str]:
    code = _CODE.format(name=name, imported=imported, before=before)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGSEGV", "SIGABRT"])
def test_a_signal_ends_the_process_as_it_does_without_pycolmap(name: str) -> None:
    done = ended(name, "from retrieval.geometry.colmap import pycolmap; pycolmap.Camera")
    assert (done.returncode, done.stderr) == (-signal.Signals[name], "")


def test_pycolmap_alone_would_handle_it() -> None:
    """Else the module is not needed any more."""
    assert "SIGTERM" in ended("SIGTERM", "import pycolmap").stderr


def test_handlers_of_before_stay() -> None:
    before = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); faulthandler.enable()"
    assert ended("SIGTERM", "from retrieval.geometry.colmap import pycolmap", before).returncode == 7
    crashed = ended("SIGSEGV", "from retrieval.geometry.colmap import pycolmap", before)
    assert crashed.returncode == -signal.SIGSEGV and "Fatal Python error: Segmentation fault" in crashed.stderr
