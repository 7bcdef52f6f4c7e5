"""Which MLflow store a job uses, and that one which cannot be used is refused at once."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ray_jobs.runtime.news import quiet
from ray_jobs.runtime.news.screen import Screen
from ray_jobs.runtime.tracking.store import client_of, explained, make, reach, sqlite_path, store_uri
from retrieval.artifacts.folder import Folder

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _no_store_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_by_default_it_is_a_file_in_the_workspace(tmp_path: Path) -> None:
    assert store_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert store_uri("", Folder.of(tmp_path / "a b")) == f"sqlite:///{tmp_path}/a b/mlflow.db"


def test_a_relative_file_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_uri("sqlite:///runs.db", "s3://bucket/w") == f"sqlite:///{tmp_path}/runs.db"
    assert store_uri("sqlite:////abs/runs.db", tmp_path) == "sqlite:////abs/runs.db"


def test_the_flag_goes_before_the_environment_and_that_before_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert store_uri(None, "s3://bucket/w") == store_uri("", tmp_path) == "http://tracking:5000"
    assert store_uri("http://other:1", tmp_path) == "http://other:1"


def test_an_object_store_cannot_hold_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"s3://bucket/w is an object store.*--tracking-uri"):
        store_uri(None, "s3://bucket/w")


def test_only_sqlite_has_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sqlite_path("http://tracking:5000") is None and sqlite_path("postgresql://u@h/db") is None
    assert sqlite_path("sqlite:///~/x.db") == tmp_path / "x.db"
    assert sqlite_path("sqlite:////y/x.db") == Path("/y/x.db")


def test_reaching_a_file_makes_its_folder_and_refuses_what_cannot_be_written(tmp_path: Path) -> None:
    reach(f"sqlite:///{tmp_path}/new/folder/mlflow.db")
    assert (tmp_path / "new/folder").is_dir() and not (tmp_path / "new/folder/mlflow.db").exists()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"MLflow at sqlite:///.* cannot be used: .*--tracking-uri"):
        reach(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_a_file_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mlflow.db"
    file.write_text("")
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append((path, mode)))  # root may write anything
    with pytest.raises(ValueError, match=f"no permission to write {file}"):
        reach(f"sqlite:///{file}")
    file.unlink()
    with pytest.raises(ValueError, match=f"no permission to write {tmp_path}"):
        reach(f"sqlite:///{file}")
    assert asked == [(file, os.W_OK), (tmp_path, os.W_OK)]


def test_a_server_must_listen_on_its_port_or_the_schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(address: tuple[str, int], timeout: float) -> None:
        asked.append((address, timeout))
        raise ConnectionRefusedError("nobody listens")

    monkeypatch.setattr(socket, "create_connection", refuse)
    for uri in ("http://host:5000/x", "http://host", "https://host"):
        with pytest.raises(ValueError, match=f"MLflow at {uri} cannot be used: nobody listens. Start the server"):
            reach(uri)
    assert [address for address, _ in asked] == [("host", 5000), ("host", 80), ("host", 443)]
    assert all(0 < timeout <= 10 for _, timeout in asked)
    reach("databricks")  # other stores are MLflow's to try


def test_what_mlflow_raises_says_what_to_do() -> None:
    from mlflow.exceptions import MlflowException

    for error in (MlflowException("the database is locked"), OSError("the database is locked")):
        with pytest.raises(ValueError, match=r"MLflow at store cannot be used: the database is locked.*--tracking-uri"):
            with explained("store"):
                raise error
    with pytest.raises(KeyError), explained("store"):
        raise KeyError("ours")


def test_a_client_is_of_this_store_alone_and_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    client = client_of(f"sqlite:///{tmp_path}/mlflow.db")
    assert client.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db" and mlflow.get_tracking_uri() == before
    shown = io.StringIO()
    monkeypatch.setattr(quiet, "SCREEN", Screen(shown))
    own = [each for each in logging.getLogger("mlflow").handlers if type(each) is logging.StreamHandler]
    assert own  # pytest's, of classes of their own, are there too
    for handler in own:  # it is left to our screen, which shows what is amiss only
        records = [logging.LogRecord("mlflow", level, "", 0, "a line", None, None) for level in (20, 30)]
        assert not any(handler.filter(record) for record in records)
    assert [line[9:] for line in shown.getvalue().splitlines()] == ["WARNING mlflow: a line"] * len(own)


def test_mlflow_tells_its_makers_nothing_whichever_module_is_first() -> None:
    ask = "import os, ray_jobs.runtime.tracking.{}; print(os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    env = {name: value for name, value in os.environ.items() if name != "MLFLOW_DISABLE_TELEMETRY"}
    for module in ("store", "registry"):
        done = subprocess.run([sys.executable, "-c", ask.format(module)], env=env, capture_output=True, text=True)
        assert done.stdout.strip() == "true", done.stderr


def test_a_store_whose_maker_was_killed_between_two_tables_is_made_anew(tmp_path: Path) -> None:
    """MLflow cannot open a file that has some of the tables ever again."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    dies = f"""
import itertools, os, signal
from sqlalchemy import event
from sqlalchemy.engine import Engine
from ray_jobs.runtime.tracking.store import make

tables = itertools.count(1)

@event.listens_for(Engine, "before_cursor_execute")
def kill(connection, cursor, statement, *more):
    if "CREATE TABLE" in statement and next(tables) == 30:
        os.kill(os.getpid(), signal.SIGKILL)

make({uri!r})
"""
    died = subprocess.run([sys.executable, "-c", dies], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL and not (tmp_path / "mlflow.db").exists()
    (tmp_path / "mlflow.db.half-journal").write_bytes(b"of the one who died")
    for _ in range(2):  # the second time it is there
        make(uri)
        assert client_of(uri).search_experiments(max_results=1)[0].name == "Default"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db"]
    make("http://127.0.0.1:9")  # a server makes its own
