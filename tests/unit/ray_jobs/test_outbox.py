"""What MLflow could not be told waits, in order, and is told once by whoever comes next."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes

from ray_jobs.runtime.tracking.outbox import REFUSED, Outbox, is_away
from ray_jobs.runtime.tracking.runs import WAIT, Tracker, open_run
from ray_jobs.runtime.tracking.store import store_uri
from retrieval.artifacts.folder import Folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return store_uri(None, tmp_path_factory.mktemp("store"))


@pytest.fixture
def nowhere() -> str:
    """The address of a server that is down."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


def test_a_run_whose_store_is_away_goes_on_and_the_next_one_tells_its_news(
    store: str, nowhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(WAIT, "0")
    workspace = Folder.of(tmp_path)
    first = open_run(store, experiment="away", key="first", workspace=workspace)
    away = Tracker(nowhere, first.run_id, first.workspace)
    away.log_params({"epochs": 2}, prefix="train")
    away.log_metrics({"val/mAP": 0.25}, step=1)
    away.log_history([{"epoch": 1, "val/mAP": 0.25}, {"epoch": 2, "val/mAP": 0.5}])
    workspace.write_bytes("report/page.html", b"<p>")
    away.log_folder(workspace / "report", to="report")
    away.finish()
    assert len(Outbox.of(workspace).waiting()) == 5 and "still away: 5 notes wait" in caplog.text

    open_run(store, experiment="away", key="second", workspace=workspace)
    assert Outbox.of(workspace).waiting() == []
    client = MlflowClient(store)
    run = client.get_run(first.run_id)
    assert run.data.params == {"train.epochs": "2"} and run.info.status == "FINISHED"
    points = [(point.step, point.value) for point in client.get_metric_history(first.run_id, "val/mAP")]
    assert sorted(points) == [(1, 0.25), (2, 0.5)]
    assert [file.path for file in client.list_artifacts(first.run_id, "report")] == ["report/page.html"]


def test_a_run_that_goes_on_is_running_whatever_waited_to_be_told_of_its_end(
    store: str, nowhere: str, tmp_path: Path
) -> None:
    workspace = Folder.of(tmp_path)
    first = open_run(store, experiment="again", key="k", workspace=workspace)
    Tracker(nowhere, first.run_id, first.workspace).finish("FAILED")
    again = open_run(store, experiment="again", key="k", workspace=workspace)
    assert Outbox.of(workspace).waiting() == [] and again.run_id == first.run_id
    assert MlflowClient(store).get_run(first.run_id).info.status == "RUNNING"


def test_the_end_of_a_run_does_not_wait_for_what_this_store_will_never_take(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = Folder.of(tmp_path)
    Outbox.of(workspace).keep("0" * 32, "finish", {"status": "FINISHED"})  # of a run of another store
    open_run(store, experiment="strangers", key="k", workspace=workspace).finish()
    assert "is away" not in caplog.text and len(Outbox.of(workspace).waiting()) == 1


def test_a_wait_that_is_no_time_is_refused_at_the_start_of_a_run(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WAIT, "soon")
    with pytest.raises(ValueError, match=f"{WAIT} is 'soon', expected seconds"):
        open_run(store, experiment="waits", key="k")


def test_without_a_workspace_a_store_that_is_away_is_an_error(store: str, nowhere: str) -> None:
    with pytest.raises(ValueError, match="cannot be used"):
        Tracker(nowhere, "run").log_metrics({"a": 1.0})


def test_what_is_wrong_is_said_at_once_and_not_kept(store: str, tmp_path: Path) -> None:
    tracker = open_run(store, experiment="wrong", key="k", workspace=Folder.of(tmp_path))
    with pytest.raises(ValueError, match="No sealed model"):
        tracker.register_bundle(Folder.of(tmp_path / "no"), name="n", metric="m", value=1.0, measured_on="d")
    assert Outbox.of(Folder.of(tmp_path)).waiting() == []


def news(outbox: Outbox, *whats: str) -> None:
    for what in whats:
        outbox.keep("run", what, {"n": what})


def told_until(outbox: Outbox, errors: dict[str, Exception]) -> tuple[list[str], int]:
    told: list[str] = []

    def tell(run_id: str, what: str, args: dict[str, Any]) -> None:
        assert (run_id, args) == ("run", {"n": what})
        if what in errors:
            raise errors[what]
        told.append(what)

    return told, outbox.deliver(tell)


def test_it_is_told_in_order_and_stops_where_the_store_goes_away_again(tmp_path: Path) -> None:
    outbox = Outbox.of(Folder.of(tmp_path))
    news(outbox, "a", "b", "c")
    assert told_until(outbox, {"b": ConnectionError()}) == (["a"], 2)
    assert told_until(outbox, {}) == (["b", "c"], 0)
    assert told_until(outbox, {}) == ([], 0)


def test_what_is_refused_is_kept_apart_and_holds_up_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox.of(Folder.of(tmp_path))
    news(outbox, "a", "b")
    said_no = MlflowException("the run was deleted", codes.INVALID_PARAMETER_VALUE)
    assert told_until(outbox, {"a": said_no}) == (["b"], 0)
    [name] = outbox.folder.list()
    assert name.startswith(f"{REFUSED}/") and "the run was deleted" in outbox.folder.read_json(name)["why"]
    assert "refuses a of run run" in caplog.text and outbox.waiting() == []


def test_news_of_a_run_that_this_store_does_not_know_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox.of(Folder.of(tmp_path))
    news(outbox, "a", "b")
    stranger = MlflowException("Run with id=run not found", codes.RESOURCE_DOES_NOT_EXIST)
    with caplog.at_level(logging.WARNING):
        assert told_until(outbox, {"a": stranger}) == (["b"], 0), "no coming back helps it"
    assert len(outbox.waiting()) == 1 and "of runs that this MLflow does not know" in caplog.text


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (ConnectionRefusedError(), True),
        (MlflowException("500", codes.INTERNAL_ERROR), True),
        (MlflowException("database is locked", codes.TEMPORARILY_UNAVAILABLE), True),
        (MlflowException("no such run", codes.RESOURCE_DOES_NOT_EXIST), False),
        (MlflowException("bad name", codes.INVALID_PARAMETER_VALUE), False),
        (FileNotFoundError("our file"), False),
        (ValueError("no figure"), False),
    ],
    ids=repr,
)
def test_away_and_no_are_told_apart(error: Exception, away: bool) -> None:
    assert is_away(error) is away
    try:
        try:
            raise error
        except Exception as cause:
            raise ValueError("explained") from cause
    except ValueError as explained:
        assert is_away(explained) is away
