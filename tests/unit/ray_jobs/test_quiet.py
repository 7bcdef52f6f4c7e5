"""What a run prints: ours at any level, of others warnings and errors, known notices not; all of it in the log file."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from ray_jobs.runtime.news import quiet
from ray_jobs.runtime.news.screen import Screen, ScreenHandler

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def clean_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The root logger as in a new process, and what the screen shows."""
    root, shown = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    root.handlers, root.level = [], logging.WARNING
    monkeypatch.setattr(quiet, "SCREEN", Screen(shown))
    yield shown
    root.handlers, root.level = handlers, level


def test_our_news_is_shown_and_of_others_only_what_is_amiss(clean_root: io.StringIO) -> None:
    quiet.set_up_logging()
    quiet.set_up_logging()  # each job of a pipeline does
    for name in ("retrieval.data.catalog", "ray_jobs.ingest", "serve.app", "__main__", "botocore.client", "retrievals"):
        logging.getLogger(name).info("news of %s", name)
    logging.getLogger("botocore.client").warning("amiss")
    logging.getLogger("retrieval.data").debug("detail")
    lines = [line[9:] for line in clean_root.getvalue().splitlines()]
    assert lines == [
        "news of retrieval.data.catalog",
        "news of ray_jobs.ingest",
        "news of serve.app",
        "news of __main__",
        "WARNING botocore: amiss",
    ]
    assert sum(isinstance(handler, ScreenHandler) for handler in logging.getLogger().handlers) == 1


def test_what_libraries_brought_along_shows_warnings_but_for_known_notices(clean_root: io.StringIO) -> None:
    logger, stream = logging.getLogger("chatty.library"), io.StringIO()
    logger.propagate, logger.level = False, logging.INFO
    logger.addHandler(logging.StreamHandler(stream))
    quiet.hush("chatty.library")
    quiet.hush("chatty.library")
    logger.info("Started")
    logger.warning("Token authentication is enabled for this Ray cluster. Set RAY_AUTH_MODE=disabled to opt out.")
    logger.warning("Progress bars disabled. To enable, set `enable_progress_bars = True`.")
    logger.warning("Cluster resources are not enough to run any task. The job may hang forever.")
    logger.error("No space left on device")
    assert stream.getvalue() == ""  # it would write into the bar
    assert [line[9:] for line in clean_root.getvalue().splitlines()] == [
        "WARNING chatty: Cluster resources are not enough to run any task. The job may hang forever.",
        "ERROR chatty: No space left on device",
    ]
    assert len(logger.handlers[0].filters) == 1
    logger.handlers.clear()


def test_whatever_is_silenced_is_in_the_log_file(
    tmp_path: Path, clean_root: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "_CHATTY", ("chatty",))
    chatty = logging.getLogger("chatty")
    chatty.propagate, chatty.level = False, logging.INFO
    quiet.set_up_logging()
    with quiet.kept_in(tmp_path):
        quiet.hush()  # as whoever loads MLflow does
        chatty.info("Running upgrade 1 -> 2")
        logging.getLogger("ray_jobs.ingest").info("960 photos")
        logging.getLogger("botocore").info("found credentials")
    chatty.info("after")
    kept = (tmp_path / quiet.LOG_FILE).read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in kept] == [
        "INFO chatty: Running upgrade 1 -> 2",
        "INFO ray_jobs.ingest: 960 photos",
        "INFO botocore: found credentials",
    ]
    assert clean_root.getvalue().count("\n") == 1
    assert chatty.handlers == []


def test_a_folder_that_is_not_there_is_no_place_for_a_log(tmp_path: Path) -> None:
    with quiet.kept_in(tmp_path / "elsewhere"), quiet.kept_in(None):
        pass
    assert list(tmp_path.iterdir()) == []
