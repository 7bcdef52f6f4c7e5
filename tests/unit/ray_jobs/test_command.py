"""How a command answers: settings, mistakes, and who is to mend an error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import tyro

from ray_jobs.runtime import command as module
from ray_jobs.runtime.command import command, of_the_user, parse
from ray_jobs.runtime.parallel.limits import TimeLimits
from retrieval.artifacts.storage.failures import Outage


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    """How much."""

    num: int = 0
    """A number."""

    def __post_init__(self) -> None:
        if self.num < 0:
            raise ValueError(f"num is {self.num}, expected 0 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Common:
    """Common."""

    out: str = "here"
    """Where."""
    index: Inner = field(default_factory=Inner)
    """What index."""


@dataclass(frozen=True, kw_only=True, slots=True)
class People(Common):
    """People."""

    demo: bool = False
    """Draw them."""

    def __post_init__(self) -> None:
        if self.out == "nowhere":
            raise ValueError("out is nowhere, expected a place.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Places(Common):
    """Places."""

    mining: Literal["structure", "clusters"] = "structure"
    """Where tuples come from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flat:
    """As jobs have their limits: without a prefix."""

    limits: Annotated[TimeLimits, tyro.conf.arg(name="")] = field(default_factory=TimeLimits)
    """When to stop trying."""


PRESETS: dict[str, tuple[str, Any]] = {
    "people": ("Find people.", People(out="faces")),
    "places": ("Find places.", Places(out="houses")),
}


def refused(config: Any, line: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        parse(config, "What it does.", "ray_jobs.x", line.split())
    assert end.value.code == 2
    said = capsys.readouterr()
    assert said.out == "" and "Traceback" not in said.err
    assert not set("\u2502\u256d\u2500") & set(said.err) and "---" not in said.err, "no box"
    return said.err


def test_a_command_line_becomes_settings() -> None:
    assert parse(People, "", "ray_jobs.x", ["--index.num", "3"]) == People(index=Inner(num=3))
    assert parse(PRESETS, "", "ray_jobs.x", ["people", "--demo"]) == People(out="faces", demo=True)
    assert parse(PRESETS, "", "ray_jobs.x", ["places", "--mining", "clusters"]) == Places(
        out="houses", mining="clusters"
    )


def test_help_is_printed_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    for config, words in ((People, []), (PRESETS, ["people"])):
        with pytest.raises(SystemExit) as end:
            parse(config, "What it does.", "ray_jobs.x", [*words, "--help"])
        said = capsys.readouterr()
        assert end.value.code == 0 and "--index.num" in said.out and said.err == ""
        assert f"usage: python -m ray_jobs.x {' '.join(words)}".strip() in said.out


def test_a_misspelt_flag_is_refused_with_the_near_ones_named(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(People, "--indx.num 3", capsys)
    assert said.startswith("Unrecognized options: --indx.num, 3\n\nPerhaps you meant:\n    --index.num INT\n")
    assert "python -m ray_jobs.x --help" in said


def test_the_box_is_taken_off_whatever_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = refused(People, "--indx.num 3", capsys)
    monkeypatch.setattr("tyro._fmtlib._should_use_utf8_drawing_chars", lambda: True)
    assert refused(People, "--indx.num 3", capsys) == plain


def test_a_flag_of_the_other_road_is_refused_and_says_whose_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(PRESETS, "people --mining clusters", capsys)
    assert "--mining {structure,clusters}" in said and "in python -m ray_jobs.x places --help" in said
    assert "--demo" in refused(PRESETS, "places --demo", capsys)


@pytest.mark.parametrize(
    ("config", "line", "wanted"),
    [
        (PRESETS, "people --index.num -3", "Error parsing index: num is -3, expected 0 or more."),
        (People, "--index.num -3", "Error parsing index: num is -3, expected 0 or more."),
        (
            Flat,
            "--wait-seconds -3",
            "wait_seconds is -3, expected 0 or more.\nFor full helptext, see python -m ray_jobs.x --help",
        ),
        (People, "--out nowhere", "out is nowhere, expected a place."),
        (PRESETS, "people --out nowhere", "out is nowhere, expected a place."),
        (People, "--index.num x", "Error parsing --index.num: invalid literal for int() with base 10: 'x'"),
        (PRESETS, "places --mining label", "invalid choice 'label' for argument '--mining'."),
        (PRESETS, "peopl", "Available subcommands: people, places"),
        (PRESETS, "", "Expected one of {people, places}."),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    config: Any, line: str, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(config, line, capsys)
    assert wanted in said and "tyro" not in said and "People" not in said


def start(main: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch, name: str | None = "ray_jobs.x") -> Any:
    monkeypatch.delenv(module.DEBUG, raising=False)
    monkeypatch.setattr(sys, "argv", ["x.py", "--out", "there"])
    return command(People, main, "What it does.", name)


def test_main_gets_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Any] = []
    start(got.append, monkeypatch)
    assert got == [People(out="there")]


def of_ours(main: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`main` as if it stood in a module of the library."""
    return FunctionType(main.__code__, {**globals(), "__name__": "retrieval.x"})


def no_photos(_: Any) -> None:
    raise ValueError("No photos there.")


def no_permission(_: Any) -> None:
    if True:
        raise PermissionError(
            "No photos there.",
        )


@pytest.mark.parametrize("main", [no_photos, no_permission])
def test_what_the_user_can_mend_is_one_message(
    main: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        start(of_ours(main), monkeypatch)
    assert end.value.code == 2 and capsys.readouterr().err == "\nray_jobs.x: No photos there.\n"
    monkeypatch.setenv(module.DEBUG, "1")
    monkeypatch.setattr(sys, "argv", ["x.py"])
    with pytest.raises((ValueError, PermissionError)):
        command(People, of_ours(main), "", "ray_jobs.x")


FAULTS: dict[str, Callable[[Any], Any]] = {
    "a builtin": lambda _: int("x"),
    "a library's C code": lambda _: np.ones(2) @ np.ones(3),
    "a library's Python code": lambda _: json.loads("{"),
    "an assertion": lambda _: pytest.fail("never"),
}


@pytest.mark.parametrize("main", FAULTS.values(), ids=FAULTS)
def test_a_fault_keeps_its_stack(main: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((ValueError, pytest.fail.Exception)):
        start(of_ours(main), monkeypatch)


def test_a_libraries_own_refusal_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="No photos"):
        start(no_photos, monkeypatch)  # its module is this test


def test_an_interrupted_job_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        start(main, monkeypatch)
    assert end.value.code == 130 and "The same command goes on" in capsys.readouterr().err


def stack(*frames: tuple[str, str]) -> str:
    return "Traceback (most recent call last):\n" + "".join(
        f'  File "{path}", line 7, in work\n    {line}\n' for path, line in frames
    )


class FromWorker(ValueError):
    """As Ray wraps an error of a task: with the stack there, and the cause."""

    def __init__(self, stack: str, cause: Exception) -> None:
        super().__init__(stack)
        self.cause = cause


OURS = ("/tmp/ray/session/working_dir_files/_ray_pkg_1/retrieval/data/listing.py", "raise ValueError(")
ITS_OWN = ("/x/retrieval/search/index.py", "scores = queries @ gallery.T")
LIBRARY = ("/env/site-packages/numpy/core.py", "raise ValueError(msg)")
SERVE = ("/env/site-packages/ray/serve/api.py", "raise ValueError(msg)")


@pytest.mark.parametrize(
    ("frames", "expected"),
    [((LIBRARY, OURS), True), ((OURS, LIBRARY), False), ((ITS_OWN,), False), ((SERVE,), False), ((), False)],
)
def test_of_a_workers_error_the_workers_stack_decides(
    frames: Any, expected: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrapped = FromWorker(stack(*frames), ValueError("No photos there."))
    assert of_the_user(wrapped) is expected
    try:
        try:
            raise wrapped
        except FromWorker as error:
            raise error.cause from None  # as on_cluster does
    except ValueError as unwrapped:
        assert of_the_user(unwrapped) is expected
    if expected:

        def main(_: Any) -> None:
            raise wrapped

        with pytest.raises(SystemExit):
            start(main, monkeypatch)
        assert capsys.readouterr().err == "\nray_jobs.x: No photos there.\n"


def test_a_job_that_gave_up_waiting_says_to_schedulers_that_it_may_be_begun_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class FromTask(OSError):
        cause = Outage("Storage does not answer: reading a failed for 300 s.")

    for error in (FromTask.cause, FromTask("a stack")):

        def main(_: Any, error: OSError = error) -> None:
            raise error

        with pytest.raises(SystemExit) as end:
            start(main, monkeypatch)
        assert end.value.code == 75
        assert capsys.readouterr().err == "\nray_jobs.x: Storage does not answer: reading a failed for 300 s.\n"


def test_other_errors_are_never_the_users() -> None:
    assert not of_the_user(KeyError("x")) and not of_the_user(RuntimeError("x")) and not of_the_user(ValueError("bare"))


def test_the_started_module_names_itself(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Spec:
        name = "ray_jobs.embed.__main__"

    monkeypatch.setattr(sys.modules["__main__"], "__spec__", Spec)
    with pytest.raises(SystemExit):
        start(of_ours(no_photos), monkeypatch, None)
    assert capsys.readouterr().err == "\nray_jobs.embed: No photos there.\n"
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    with pytest.raises(SystemExit):
        start(of_ours(no_photos), monkeypatch, None)
    assert capsys.readouterr().err == "\nx.py: No photos there.\n"
