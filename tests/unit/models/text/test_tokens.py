"""A text becomes the numbers that its tokenizer gives, filled up as the tower was trained, or is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from retrieval.models.text.manifest import TextManifest
from retrieval.models.text.tokens import Tokens, TooLong
from tests.support.words import CONTEXT, WORDS, tokenizer

NUMBERS = {word: number for number, word in enumerate(WORDS)}
RED_CIRCLE = [NUMBERS[word] for word in ("<s>", "red", "circle", "</s>")]


def tokens(content: bytes | None = None, **told: object) -> Tokens:
    return Tokens(tokenizer() if content is None else content, TextManifest(**{"context": CONTEXT, **told}))  # type: ignore[arg-type]


def test_a_text_is_begun_ended_and_filled_up() -> None:
    ids, mask = tokens().batch(["Red circle", "blue"])
    assert ids.dtype == mask.dtype == np.int64 and ids.shape == mask.shape == (2, CONTEXT)
    assert ids[0].tolist() == [*RED_CIRCLE, 0, 0, 0, 0]
    assert mask.tolist() == [[1] * 4 + [0] * 4, [1] * 3 + [0] * 5]
    assert tokens().ids("red dodecahedron")[2] == NUMBERS["<unk>"]


def test_what_fills_up_is_what_the_file_says_unless_the_manifest_does() -> None:
    assert tokens().pad == 0
    assert tokens(tokenizer(pad=2)).pad == 2
    assert (tokens(tokenizer(pad=2), pad=1).pad, tokens(tokenizer(pad=2), pad=0).pad) == (1, 0)
    assert tokens(tokenizer(pad=2)).batch(["red"])[0][0].tolist() == [1, NUMBERS["red"], 2, 2, 2, 2, 2, 2]
    assert tokens(tokenizer(pad=2)).batch(["red"])[1].sum() == 3, "what fills up is no part of the text"


def test_a_text_too_long_is_refused_and_not_cut() -> None:
    assert len(tokens().ids("red " * (CONTEXT - 2))) == CONTEXT
    with pytest.raises(TooLong, match=f"the text has {CONTEXT + 1} tokens, and this model takes {CONTEXT}. Shorten it"):
        tokens().ids("red " * (CONTEXT - 1))


def test_capitals_are_made_small_where_the_manifest_says_so() -> None:
    content = tokenizer().replace(b'"type":"Lowercase"', b'"type":"NFC"')
    assert content != tokenizer()
    assert tokens(content).ids("RED")[1] == NUMBERS["<unk>"]
    assert tokens(content, lowercase=True).ids("RED")[1] == NUMBERS["red"]


def test_a_text_of_nothing_is_refused() -> None:
    bare = tokenizer().decode()
    start = bare.index('"post_processor":')
    bare = bare[:start] + '"post_processor":null,' + bare[bare.index('"decoder":') :]
    with pytest.raises(ValueError, match="no word that this model knows"):
        tokens(bare.encode()).ids(" ")


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"version":"1.0"}', b"[" * 10_000])
def test_what_is_no_tokenizer_is_refused_with_how_to_make_one(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"tokenizer.json is no tokenizer .*AutoTokenizer"):
        tokens(content)


def test_a_filling_that_is_no_token_is_refused() -> None:
    with pytest.raises(ValueError, match=f"knows {len(WORDS)} tokens, and texts are filled up with number 99"):
        tokens(pad=99)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match=r"pip install '\.\[text\]'"):
        tokens()
