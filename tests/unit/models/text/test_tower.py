"""A text tower is what its files say, or is refused in a sentence; its bundle brings it wherever the network goes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.models import bundle
from retrieval.models.engines.manifest import read_network
from retrieval.models.network import with_whitening
from retrieval.models.settings import ModelConfig
from retrieval.models.spec import load_spec
from retrieval.models.text.tower import TextTower, open_text, take_text
from tests.support.frozen import tiny, write
from tests.support.networks import whitening
from tests.support.words import CONTEXT, DIM, WORDS, text_tower, tokenizer, write_pair

NUMBERS = {word: number for number, word in enumerate(WORDS)}


def tower_of(
    folder: Path, model: onnx.ModelProto | None = None, text: str = "", words: bytes | None = None
) -> TextTower:
    write_pair(folder, text=text)
    if model is not None:
        (folder / "text.onnx").write_bytes(model.SerializeToString())
    if words is not None:
        (folder / "tokenizer.json").write_bytes(words)
    found = read_network(f"onnx:{folder}")
    assert found.text is not None
    take_text(found.manifest, found.text)
    return TextTower(found.manifest, found.text)


def by_hand(texts: list[str], mask: bool = True) -> np.ndarray:
    """The mean of the rows of `text_tower`'s own table, times its matrix, of length 1."""
    rng = np.random.default_rng(3)
    table, matrix = rng.normal(size=(len(WORDS), 12)), rng.normal(size=(12, DIM))
    rows = []
    for text in texts:
        ids = [NUMBERS[word] for word in ("<s>", *text.split(), "</s>")]
        ids += [] if mask else [0] * (CONTEXT - len(ids))
        row = table[ids].mean(axis=0) @ matrix
        rows.append(row / np.linalg.norm(row))
    return np.array(rows)


@pytest.mark.parametrize(
    ("made", "mask"),
    [
        ({}, True),
        ({"mask": False}, False),
        ({"dtype": TensorProto.INT32}, True),
        ({"batch": 1}, True),
        ({"batch": 2}, True),
        ({"context": "tokens"}, True),
    ],
)
def test_words_are_given_as_the_graph_asks(tmp_path: Path, made: dict[str, Any], mask: bool) -> None:
    texts = ["red circle", "blue", "yellow square triangle"]
    got = tower_of(tmp_path, text_tower(**made)).embed(texts)
    assert got.shape == (3, DIM) and got.dtype == np.float32
    np.testing.assert_allclose(got, by_hand(texts, mask), atol=1e-5)


def test_one_of_two_outputs_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="text tower of shapes has the outputs text_embeds, rows, and its manifest names"
    ):
        tower_of(tmp_path / "a", text_tower(second=True))
    named = tower_of(tmp_path / "b", text_tower(second=True), 'output = "text_embeds"')
    np.testing.assert_allclose(named.embed(["red"]), by_hand(["red"]), atol=1e-5)


def renamed(model: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    """The model with another name for an input."""
    content = model.SerializeToString()
    assert len(old) == len(new), "a protobuf string begins with its length"
    return onnx.ModelProto.FromString(content.replace(old.encode(), new.encode()))


RNG = np.random.default_rng(0)
SMALL, LONG = RNG.normal(size=(len(WORDS) - 1, 4)), RNG.normal(size=(4, DIM + 1))


@pytest.mark.parametrize(
    ("model", "text", "said"),
    [
        (renamed(text_tower(), "attention_mask", "token_type_ids"), "", "expected the tokens, and an attention_mask"),
        (text_tower(context=CONTEXT + 1), "", rf"takes 'input_ids' \(any, 9\) of int64, expected \(texts, {CONTEXT}\)"),
        (text_tower(dtype=TensorProto.FLOAT), "", "of float32, expected"),
        (
            text_tower(RNG.normal(size=(len(WORDS), 4)), LONG),
            "",
            f"gives 'text_embeds' .*, and its manifest says dim {DIM}",
        ),
        (
            text_tower(SMALL),
            "",
            r"knows 10 tokens, and its tokenizer numbers them up to 10: they were not made for each",
        ),
        (text_tower(np.ones((len(WORDS), 4))), "", "gives the same for different texts"),
        (text_tower(np.full((len(WORDS), 4), np.nan)), "", "gives values that are no numbers"),
        (None, "pad = 11", "filled up with number 11"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, model: onnx.ModelProto | None, text: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        tower_of(tmp_path, model, text)


def test_a_tower_of_another_length_is_refused_where_its_file_does_not_say(tmp_path: Path) -> None:
    model = text_tower(RNG.normal(size=(len(WORDS), 4)), LONG)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "values"
    with pytest.raises(ValueError, match=f"gives {DIM + 1} values a text, and the network {DIM} a photo"):
        tower_of(tmp_path, model)


def test_a_bundle_brings_its_tower_and_says_what_it_takes(tmp_path: Path) -> None:
    """Saved and loaded again, as jobs do it that make a bundle from another."""
    network = write_pair(tmp_path / "pair", text="pad = 2")
    out = Folder.of(tmp_path / "model")
    bundle.save_start(bundle.start(ModelConfig(backbone=f"onnx:{network}", flip=True)), out)
    bundle.save_bundle(bundle.load_network(out), tmp_path / "again")
    for folder in (out, Folder.of(tmp_path / "again")):
        spec = load_spec(folder)
        assert spec.network is not None and spec.network.text is not None
        assert (spec.network.text.context, spec.network.text.pad) == (CONTEXT, 2)
        assert {"text.onnx", "tokenizer.json"} <= set(read_manifest(folder).files)
        tower = open_text(folder, spec)
        assert tower is not None and tower.embed(["red"]).shape == (1, DIM)
    (tmp_path / "model/tokenizer.json").write_bytes(tokenizer(pad=1))
    with pytest.raises(ValueError, match="tokenizer.json is not the file that was sealed"):
        bundle.load_network(out)
    with pytest.raises(ValueError, match="another file than its manifest names"):
        open_text(out, load_spec(out))


def test_a_bundle_without_one_has_none(tmp_path: Path) -> None:
    write(tmp_path / "net", tiny())
    out = Folder.of(tmp_path / "model")
    bundle.save_start(bundle.start(ModelConfig(backbone=f"onnx:{tmp_path / 'net'}")), out)
    assert open_text(out, load_spec(out)) is None and load_spec(out).plain["network"].keys().isdisjoint({"text"})


def test_what_is_learned_on_photos_is_not_laid_over_words(tmp_path: Path) -> None:
    net = bundle.start(ModelConfig(backbone=f"onnx:{write_pair(tmp_path)}"))
    with pytest.raises(ValueError, match=r"shapes has a text tower, and a map learned on photos .*without \[text\]"):
        with_whitening(net, *whitening(4, DIM), "pca")


def test_it_is_opened_without_pytorch(tmp_path: Path) -> None:
    out = Folder.of(tmp_path / "model")
    bundle.save_start(bundle.start(ModelConfig(backbone=f"onnx:{write_pair(tmp_path / 'pair')}")), out)
    code = "import sys; from retrieval.artifacts.folder import Folder; from retrieval.models.spec import load_spec; "
    code += f"from retrieval.models.text.tower import open_text; folder = Folder.of({str(tmp_path / 'model')!r}); "
    code += "open_text(folder, load_spec(folder)).embed(['red']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
