"""One photo's time in native code, kept by the kernel; and what a test may have it do."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval.images import native
from retrieval.images.native import POISON

ROOT = Path(__file__).resolve().parents[3]


def run(code: str, poison: str = "") -> int:
    """What a process of this code ends with."""
    head = "import time\nfrom retrieval.images import native\nfrom retrieval.images.native import one_photo, strike\n"
    env = {"PATH": "/usr/bin:/bin", POISON: poison}
    return subprocess.run([sys.executable, "-c", head + code], cwd=ROOT, env=env, timeout=60).returncode


def test_a_photo_that_takes_too_long_ends_the_process_though_it_holds_the_interpreter_s_lock() -> None:
    code = "native.limit(0.3)\nwith one_photo():\n    strike(b'a bad photo')\n"
    assert run(code, "hang:bad") == -signal.SIGALRM


def test_the_limit_may_be_set_by_any_thread_as_those_of_ray_train_are() -> None:
    code = "import threading\none = threading.Thread(target=native.limit, args=(0.3,))\none.start()\none.join()\n"
    assert run(code + "with one_photo():\n    strike(b'a bad photo')\n", "hang:bad") == -signal.SIGALRM


def test_time_counts_within_the_block_only_and_the_outer_one_s_within_two() -> None:
    code = "native.limit(1.5)\n" + "with one_photo():\n    time.sleep(0.6)\ntime.sleep(1)\n" * 3
    assert run(code) == 0
    assert run("native.limit(0.5)\nwith one_photo(6):\n    time.sleep(0.7)\n") == 0
    inner = "native.limit(0.4)\nwith one_photo():\n    for _ in range(9):\n        with one_photo():\n"
    assert run(inner + "            time.sleep(0.1)\n") == -signal.SIGALRM


OTHERS = """
import threading
def work(start):
    time.sleep(start)
    for _ in range(24):
        with one_photo():
            time.sleep(0.1)
native.limit(1.5)
threads = [threading.Thread(target=work, args=(start,), daemon=True) for start in (0, 0.03, 0.06)]
for thread in threads:
    thread.start()
"""


def test_of_threads_that_work_at_once_each_has_its_own_time() -> None:
    """There is always one within such a block, for longer than a photo may take, and none takes too long."""
    assert run(OTHERS + "for thread in threads:\n    thread.join()\n") == 0
    assert run(OTHERS + "with one_photo():\n    time.sleep(4)\n") == -signal.SIGALRM


def test_without_a_limit_nothing_is_timed() -> None:
    assert (
        run(
            "with one_photo():\n    time.sleep(0.1)\nnative.limit(0.05)\nnative.limit(0)\nwith one_photo():\n"
            "    time.sleep(0.2)\n"
        )
        == 0
    )
    with pytest.raises(ValueError, match="-1 seconds for a photo, expected 0"):
        native.limit(-1)


def test_a_poisoned_photo_is_known_by_a_word_in_it_or_by_its_digest() -> None:
    assert run("strike(b'bad photo')", "crash:bad") == -signal.SIGSEGV
    digest = hashlib.sha256(b"another").hexdigest()
    assert run("strike(b'another')", f"hang:none,crash:{digest}") == -signal.SIGSEGV
    assert run("strike(b'bad photo')", "raise:bad") == 1
    assert run("strike(b'a good one')", f"crash:bad,crash:{digest}") == run("strike(b'bad')") == 0
