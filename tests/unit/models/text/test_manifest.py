"""The table `text` of a network's manifest, and the two files that it names."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.models.engines.manifest import parse_manifest, read_network
from retrieval.models.settings import ModelConfig
from retrieval.models.spec import ModelSpec
from retrieval.models.text.manifest import TextManifest, read_text
from tests.support.frozen import tiny, write
from tests.support.words import CONTEXT, write_pair

LEAST = {"name": "tiny", "dim": 8, "licence": "MIT"}


def test_the_network_brings_both_files_and_is_not_taken_for_its_tower(tmp_path: Path) -> None:
    write_pair(tmp_path)
    found = read_network(f"onnx:{tmp_path}")
    assert found.content == (tmp_path / "image.onnx").read_bytes() and found.text is not None
    assert found.text.tower == (tmp_path / "text.onnx").read_bytes()
    assert found.text.tokenizer == (tmp_path / "tokenizer.json").read_bytes()
    told = found.manifest.text
    assert told is not None and (told.context, told.pad, told.lowercase) == (CONTEXT, None, False)
    assert told.sha256 == hashlib.sha256(found.text.tower).hexdigest()
    assert told.tokenizer_sha256 == hashlib.sha256(found.text.tokenizer).hexdigest()
    assert parse_manifest(plain(found.manifest), "model.json") == found.manifest


def test_a_network_without_words_says_of_itself_what_it_said_before() -> None:
    network = parse_manifest(LEAST, "here")
    spec = ModelSpec(config=ModelConfig(backbone="onnx:tiny", head="none"), network=network)
    assert network.text is None and "text" not in spec.plain["network"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"context": 1}, "here, text: context is 1, expected the tokens that the tower takes, 2 to 4096"),
        ({"context": 5000}, "context is 5000"),
        ({"context": 8, "pad": -1}, "here, text: pad is -1"),
        ({"context": 8, "file": "../text.onnx"}, r"file is '\.\./text.onnx', expected the name of a file beside"),
        ({"context": 8, "tokenizer": "a/b.json"}, "tokenizer is 'a/b.json'"),
        ({"context": 8, "file": "one", "tokenizer": "one"}, "both 'one'"),
        ({"context": 8, "tokens": 3}, r"here, text has fields that are not known: \['tokens'\]. Known are: context"),
        ({}, "here, text does not say: context"),
        ("text.onnx", "here, text is 'text.onnx', expected a table of lines"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(wrong: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_manifest({**LEAST, "text": wrong}, "here")


def test_a_file_that_is_gone_or_another_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path)
    told = TextManifest(context=CONTEXT, tokenizer_sha256="0" * 64)
    with pytest.raises(ValueError, match=r"tokenizer.json is another file than net.toml names: .*expected 0000"):
        read_text(Folder.of(tmp_path), told, "net.toml")
    (tmp_path / "text.onnx").unlink()
    with pytest.raises(ValueError, match=r"network.toml names text.onnx for words, and it is not in .*Copy it there"):
        read_network(f"onnx:{tmp_path}")


def test_two_networks_in_one_folder_stay_two(tmp_path: Path) -> None:
    write_pair(tmp_path)
    (tmp_path / "other.onnx").write_bytes(tiny().SerializeToString())
    with pytest.raises(ValueError, match=r"holds 2 \.onnx files, expected one"):
        read_network(f"onnx:{tmp_path}")
    (tmp_path / "text.onnx").rename(tmp_path / "words.onnx")
    write(tmp_path / "plain", tiny())
    (tmp_path / "plain/again.onnx").write_bytes(tiny().SerializeToString())
    with pytest.raises(ValueError, match=r"holds 2 \.onnx files, expected one"):
        read_network(f"onnx:{tmp_path / 'plain'}")
