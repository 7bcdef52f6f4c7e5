"""A job as a command: its settings from the command line, its answers to mistakes in one sentence.

Nothing heavy is loaded to read a command line: --help, a misspelt flag, a value out of range or a folder that is not
there is answered in about a second. A module that calls `command` imports PyTorch, Ray and the like inside its `main`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import tyro

from ray_jobs.runtime.news import events
from retrieval.artifacts.storage.failures import Outage

logger = logging.getLogger(__name__)

T = TypeVar("T")
DEBUG = "RETRIEVAL_DEBUG"
"""Set in the environment, it shows the stack of every error."""
_OURS = ("retrieval", "ray_jobs", "serve", "__main__")
_EDGES = set("\u2570\u2500\u256f-")  # of the box that tyro draws round a message; without Unicode of hyphens
_DUMMY = "__tyro-dummy-inner__"  # how tyro 1.0 calls the settings of a subcommand where a check in them fails


def command(
    config: type[T] | Mapping[str, tuple[str, T]], main: Callable[[T], Any], doc: str | None, name: str | None = None
) -> None:
    """Parse the command line and call `main` with the settings. Ends the process with a message where that fails.

    What the user can mend (a `ValueError` that we raise, an error of storage) is one message and exit code 2; anything
    else is a fault, and is shown with its stack. An interrupted job says how to go on: exit code 130. One that gave up
    waiting for storage, credentials, a disk or memory goes on with the same command once that is there again: 75,
    which to schedulers means just that (EX_TEMPFAIL).

    Args:
        config: the settings' dataclass, or presets: name -> (what it is, settings), the first word of the command.
        name: the module, as in `python -m NAME`; by default the one that was started.
    """
    name = name or _started()
    cfg = parse(config, doc, name)
    events.of_job(name)
    try:
        main(cfg)
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. The same command goes on from here.\n")
        raise SystemExit(130) from None
    except (ValueError, OSError) as error:
        if os.environ.get(DEBUG) or not of_the_user(error):
            raise
        logger.debug("%s ends", name, exc_info=True)
        sys.stderr.write(f"\n{name}: {_message(error)}\n")
        raise SystemExit(os.EX_TEMPFAIL if isinstance(_cause(error), Outage) else 2) from None


def parse(
    config: type[T] | Mapping[str, tuple[str, T]], doc: str | None, name: str, args: Sequence[str] | None = None
) -> T:
    """The settings that a command line asks for; `args` are its words behind `python -m NAME`, by default sys.argv's.

    Ends the process after --help (0), and with a message after a word that is not understood or a value that is
    refused (2): flags like the one that was meant are named.
    """
    prog, told = f"python -m {name}", io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            if isinstance(config, Mapping):
                return tyro.extras.overridable_config_cli(dict(config), prog=prog, description=doc, args=args)
            return tyro.cli(config, prog=prog, description=doc, args=args)
    except ValueError as error:  # of settings that have no prefix of their own: tyro leaves those to us
        if os.environ.get(DEBUG) or not of_the_user(error):
            raise
        told.write(f"{_message(error)}\nFor full helptext, see {prog} --help\n")
        raise SystemExit(2) from None
    finally:
        if text := told.getvalue():
            sys.stderr.write(_unframed(text, prog))


def of_the_user(error: BaseException) -> bool:
    """Whether an error is one to be mended by the user: of storage, or a ValueError that our own code raised.

    A ValueError from inside a library, or one that Python raises by itself in our code, is a fault of ours, and its
    message alone would not help. Of an error that a worker sent, the worker's stack is looked at.
    """
    if isinstance(error, OSError):
        return True
    if not isinstance(error, ValueError):
        return False
    for origin in (error, error.__cause__, error.__context__):
        if isinstance(getattr(origin, "cause", None), BaseException):  # as Ray wraps it; its words are the stack
            return _raised_by_us(str(origin))
    return type(error) is ValueError and _raised_here(error.__traceback__)


def _raised_here(trace: TracebackType | None) -> bool:
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__", ""))
    line = traceback.extract_tb(trace, limit=1)[0].line or ""
    return module.partition(".")[0] in _OURS and "raise" in line.split()


def _raised_by_us(stack: str) -> bool:
    """Of a stack as text: File "/.../retrieval/models/bundle.py", line 1, in f, and below it the line's source."""
    frames = re.findall(r'File "([^"]+)", line \d+, in .*\n\s*(.*)', stack)
    if not frames:
        return False
    path, line = frames[-1]
    ours = re.search(r"(^|/)(retrieval|ray_jobs|serve)/", path) and "/site-packages/ray/" not in path
    return bool(ours) and "raise" in line.split()


def _message(error: BaseException) -> str:
    return str(_cause(error))


def _cause(error: BaseException) -> BaseException:
    cause = getattr(error, "cause", None)  # a worker's error, wrapped by Ray with its stack
    return cause if isinstance(cause, BaseException) else error


def _started() -> str:
    """The module that was started by `python -m`, or the script."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec is not None else os.path.basename(sys.argv[0])


def _unframed(text: str, prog: str) -> str:
    """tyro's message without the box that it draws, in which long words break, and with names that help."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).replace(f"{_DUMMY}.", "").replace(_DUMMY, "settings")
    lines = [line.strip("\u2502").rstrip() for line in text.splitlines()]
    lines = ["" if set(line.strip()) <= _EDGES else line for line in lines]
    if lines[0].startswith("\u256d") or not "".join(lines[1:2]):
        lines = lines[1:]  # the title of the box, which the next line repeats
    text = textwrap.dedent("\n".join(lines)).strip()
    text = re.sub(r"^Error parsing [A-Z]\w*: ", "", text)  # the name of our class says nothing to its user
    short = prog.partition(" ")[0]  # tyro takes a program's first word for its name
    return re.sub(rf"\bin {short} (?=[\w-]+ --help)", f"in {prog} ", text) + "\n"
