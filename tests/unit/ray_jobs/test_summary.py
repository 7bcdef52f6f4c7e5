"""What a pipeline says when it is done."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ray_jobs.runtime.summary import summary
from ray_jobs.runtime.tracking.registry import Registration
from ray_jobs.runtime.tracking.runs import Tracker
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Books, begin, seal


def made(folder: Folder, kind: str, books: list[Books] | None = None, **counts: int) -> Folder:
    begin(folder, kind=kind, config={}, inputs={})
    seal(folder, kind=kind, config={}, inputs={}, counts=counts, books=books or [])
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Folder]:
    root = Folder.of(tmp_path / "my work")
    books = [
        Books(stage="plan", taken=100, kept=100),
        Books(stage="ingest", taken=100, kept=90, rejected={"no-face": 7, "duplicate": 3}),
        Books(stage="split", taken=90, kept=85, rejected={"alone": 4, "no-face": 1}),
    ]
    report = made(root / "report", "report")
    systems = {"after": {"mAP": 0.44849, "recall@1": None}, "before": {"mAP": 0.1, "recall@1": 0.25}}
    report.write_json("metrics.json", {"order": ["before", "after"], "systems": systems})
    return {
        "collection": made(root / "collection", "collection", books),
        "model": made(root / "model", "model"),
        "index": made(root / "index", "index", num=85),
        "report": report,
    }


def said(
    folders: dict[str, Folder], registration: Registration | None = None, store: str = "sqlite:////a b/mlflow.db"
) -> list[str]:
    workspace = Folder(folders["index"].uri.rpartition("/")[0])
    return summary(workspace, folders, Tracker(store, "r7"), registration, 61.4).splitlines()


def test_it_says_what_was_made_what_was_left_out_and_why(folders: dict[str, Folder]) -> None:
    lines = said(folders)
    where = folders["collection"].uri
    assert lines[1] == "Done in 61 s."
    assert (
        f"  photos     85 of 100 kept; left out: 8 no-face, 4 alone, 3 duplicate (listed in {where}/rejected)" in lines
    )
    assert f"  collection {where}" in lines and f"  model      {folders['model']}" in lines
    assert f"  index      {folders['index']}, 85 photos" in lines
    assert f"  report     {folders['report']}/report.html" in lines
    assert not any("places" in line or "tuples" in line for line in lines)


def test_people_that_were_found_are_told_of_and_where_there_is_no_report_none_is(folders: dict[str, Folder]) -> None:
    del folders["report"]
    where = Folder(folders["index"].uri.rpartition("/")[0]) / "people"
    folders["people"] = made(where, "people", people=1200, grouped=4000, single=30, same_file=2, same_picture=3)
    lines = said(folders)
    assert "  people     1,200 found on 4,000 photos; 30 like no other" in lines
    assert f"             there twice: 5; look at {where}/people.html" in lines
    assert not any("figures" in line or "report" in line for line in lines)


def test_figures_stand_in_the_order_of_the_comparison(folders: dict[str, Folder]) -> None:
    lines = said(folders)
    at = lines.index("  figures    recall@1       mAP")
    assert lines[at + 1 : at + 3] == [
        "                0.250     0.100  before",
        "                 none     0.448  after",
    ]


def test_tuples_have_books_of_their_own(folders: dict[str, Folder], tmp_path: Path) -> None:
    books = [Books(stage="reconstruct", taken=20, kept=18, rejected={"no other photo fits its geometry": 2})]
    folders["tuples"] = made(Folder.of(tmp_path / "tuples"), "tuples", books)
    assert "  places     18 of 20 kept; left out: 2 no other photo fits its geometry" in said(folders)
    assert f"  tuples     {folders['tuples']}" in said(folders)


def test_the_commands_can_be_pasted(folders: dict[str, Folder]) -> None:
    lines = said(folders)
    root = folders["index"].uri.rpartition("/")[0]
    assert lines[-2] == "Serve it:"
    assert shlex.split(lines[-1]) == ["python", "-m", "serve", "--workspace", str(root)]
    (line,) = [line for line in lines if "mlflow ui" in line]
    assert shlex.split(line)[-2:] == ["--backend-store-uri", "sqlite:////a b/mlflow.db"]


def test_of_a_server_its_page_is_told(folders: dict[str, Folder]) -> None:
    assert "  MLflow     run r7: http://10.0.0.1:5000" in said(folders, store="http://10.0.0.1:5000")


def test_what_became_of_the_model_in_the_registry(folders: dict[str, Folder]) -> None:
    assert any("registered no: there was nothing to validate on" in line for line in said(folders))
    kept = Registration(name="faces", version="4", is_champion=False, reason="it does not beat 0.6")
    assert "  registered faces version 4: it does not beat 0.6" in said(folders, kept)
    won = Registration(name="faces", version="5", is_champion=True, reason="first")
    assert "  registered faces version 5 (champion): first" in said(folders, won)
