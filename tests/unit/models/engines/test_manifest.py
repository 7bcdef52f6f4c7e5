"""What a network takes and gives is a dozen lines; each that is wrong is refused by name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from retrieval.models import known_weights
from retrieval.models.engines.manifest import (
    KNOWN_NETWORKS,
    NetworkManifest,
    known_network,
    parse_manifest,
    read_network,
)
from tests.conftest import REAL_DATA
from tests.support.frozen import tiny, write

LEAST = {"name": "tiny", "dim": 8, "licence": "MIT"}


def test_a_dozen_lines_are_read(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        tiny(),
        channels="BGR",
        mean=[0.5, 0.5, 0.5],
        std=[0.5, 0.25, 1],
        source="example.org",
        thresholds={"same": 0.4},
    )
    for where in (file, tmp_path):
        found = read_network(f"onnx:{where}")
        manifest, content = found.manifest, found.content
        assert content == file.read_bytes()
        assert manifest.sha256 == hashlib.sha256(content).hexdigest()
        assert (manifest.name, manifest.dim, manifest.size, manifest.channels) == ("tiny", 8, 32, "BGR")
        assert (manifest.mean, manifest.std) == ((0.5, 0.5, 0.5), (0.5, 0.25, 1.0))
        assert (manifest.source, manifest.thresholds) == ("example.org", {"same": 0.4})


def test_what_is_left_out_has_a_default() -> None:
    manifest = parse_manifest(LEAST, "here")
    assert manifest == NetworkManifest(name="tiny", dim=8, licence="MIT")
    assert (manifest.size, manifest.layout, manifest.channels, manifest.mean) == (0, "NCHW", "RGB", ())
    assert parse_manifest({**LEAST, "size": "any"}, "here").size == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"dimension": 8}, r"here has fields that are not known: \['dimension'\]. Known are: name, dim, licence"),
        ({"name": "a b"}, "here: name is 'a b', expected letters"),
        ({"dim": 0}, "here: dim is 0"),
        ({"dim": "eight"}, "here: "),
        ({"licence": " "}, "here: licence is empty"),
        ({"size": 7}, r'here: size is 7, expected "any" or 8 to 2048'),
        ({"size": "huge"}, "here: "),
        ({"layout": "CHWN"}, "here: layout is 'CHWN', expected one of: NCHW, NHWC"),
        ({"channels": "HSV"}, "here: channels is 'HSV'"),
        ({"alignment": "eyes"}, "here: alignment is 'eyes'"),
        ({"mean": [0.5]}, "here: mean has 1 and std 0 values, expected 3 each"),
        ({"mean": 0.5}, "here: "),
        ({"mean": [127.5] * 3, "std": [128] * 3}, "they are of values from 0 to 1. Divide them by 255"),
        ({"mean": [0.5] * 3, "std": [0, 1, 1]}, "expected numbers, those of std above 0"),
        ({"mean": [float("nan")] * 3, "std": [1] * 3}, "expected numbers"),
        ({"thresholds": {"same": 36.3}}, "here: thresholds are cosines, -1 to 1"),
    ],
)
def test_a_wrong_line_is_named(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_manifest({**LEAST, **wrong}, "here")


@pytest.mark.parametrize("name", LEAST)
def test_a_missing_line_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"here does not say: {name}. Add"):
        parse_manifest({key: value for key, value in LEAST.items() if key != name}, "here")


def test_where_there_is_no_network_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no file .*absent.onnx. Known by name are: sface, sface-fp32"):
        read_network(f"onnx:{tmp_path}/absent.onnx")
    with pytest.raises(ValueError, match="holds 0 .onnx files, expected one"):
        read_network(f"onnx:{tmp_path}/absent")
    file = write(tmp_path, tiny())
    (tmp_path / "other.onnx").write_bytes(b"x")
    with pytest.raises(ValueError, match="holds 2 .onnx files, expected one. Name a file"):
        read_network(f"onnx:{tmp_path}")
    assert read_network(f"onnx:{file}").manifest.name == "tiny"
    (tmp_path / "tiny.toml").write_text('name = "mine"\ndim = 8\nlicence = "MIT"\n')
    assert read_network(f"onnx:{file}").manifest.name == "mine", "the file's own manifest comes before the folder's"
    (tmp_path / "tiny.toml").write_text("name: tiny")
    with pytest.raises(ValueError, match=r"tiny.toml is not TOML: .*Write lines such as: dim = 512"):
        read_network(f"onnx:{file}")
    (tmp_path / "tiny.toml").unlink()
    (tmp_path / "network.toml").unlink()
    with pytest.raises(ValueError, match=r"tiny.onnx has no manifest. Write network.toml beside it, with name, dim"):
        read_network(f"onnx:{file}")


def test_a_manifest_of_another_file_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, tiny(), sha256="0" * 64)
    with pytest.raises(ValueError, match=r"is of another file: it names sha256 0{16}\.\.\., the network beside it has"):
        read_network(f"onnx:{file}")


def test_what_is_known_by_name_says_all() -> None:
    for name in KNOWN_NETWORKS:
        manifest = known_network(name)
        assert manifest.sha256 == known_weights.KNOWN[name].sha256
        assert (manifest.dim, manifest.size, manifest.alignment) == (128, 112, "five-points")
        assert manifest.licence == "Apache-2.0" and manifest.thresholds["same"] == 0.363


def test_a_known_name_that_is_nowhere_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(known_weights.FOLDER, str(tmp_path))
    monkeypatch.setenv(known_weights.DOWNLOADS, "off")
    with pytest.raises(ValueError, match=r"Weights 'sface-fp32' are not here, and downloads are off"):
        read_network("onnx:sface-fp32")


@pytest.mark.realdata
def test_a_file_whose_bytes_are_known_needs_no_manifest(tmp_path: Path) -> None:
    file = REAL_DATA / "weights" / known_weights.KNOWN["sface"].file
    (tmp_path / "renamed.onnx").write_bytes(file.read_bytes())
    found = read_network(f"onnx:{tmp_path}")
    assert found.manifest == known_network("sface") and len(found.content) == 10_667_852
