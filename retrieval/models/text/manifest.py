"""The few lines that say what the text tower of a network takes: the table `text` of its manifest. Nothing heavy.

[text]                          # in network.toml
context = 64                    # tokens that it takes; shorter texts are filled up
file = "text.onnx"              # beside network.toml, as is the tokenizer
tokenizer = "tokenizer.json"
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass

from retrieval.artifacts.folder import Folder

TEXT_FILE, TOKENIZER_FILE = "text.onnx", "tokenizer.json"
"""What both are called in a bundle, whatever they were called before."""
MOST_TOKENS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class TextManifest:
    """What a text tower takes. Travels in the bundle's model.json as `network.text`."""

    context: int
    """Tokens that it takes, those that begin and end a text among them. A shorter text is filled up."""
    pad: int | None = None
    """The token that fills up. Left out: what the tokenizer's file says, else 0. Filled in when it is read."""
    lowercase: bool = False
    """Texts are made lower case first, where the network was trained so and its tokenizer does not do it itself."""
    output: str = ""
    """Name of the output taken; empty where there is only one."""
    file: str = TEXT_FILE
    """The tower's file, in ONNX, in the network's folder."""
    tokenizer: str = TOKENIZER_FILE
    """The tokenizer's file, in the form of the tokenizers library."""
    sha256: str = ""
    """Of the tower's file. Filled in when it is read."""
    tokenizer_sha256: str = ""
    """Of the tokenizer's. Filled in when it is read."""

    def __post_init__(self) -> None:
        if not 2 <= self.context <= MOST_TOKENS:
            raise ValueError(
                f"context is {self.context}, expected the tokens that the tower takes, 2 to {MOST_TOKENS}."
            )
        if self.pad is not None and self.pad < 0:
            raise ValueError(f"pad is {self.pad}, expected the number of a token, 0 or more.")
        for name in ("file", "tokenizer"):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value := getattr(self, name)):
                raise ValueError(f"{name} is '{value}', expected the name of a file beside the manifest.")
        if self.file == self.tokenizer:
            raise ValueError(f"file and tokenizer are both '{self.file}', expected the tower's and the tokenizer's.")


@dataclass(frozen=True, slots=True)
class TextFiles:
    """The bytes of a text tower and of its tokenizer, as they were published."""

    tower: bytes
    tokenizer: bytes


def read_text(folder: Folder, told: TextManifest, where: str) -> tuple[TextManifest, TextFiles]:
    """The two files of a network's folder, and the manifest with their hashes in it.

    Args: where: names the manifest in a refusal.

    Raises: ValueError if there is no such file, or the manifest names another.
    """
    contents = []
    for name, known in ((told.file, told.sha256), (told.tokenizer, told.tokenizer_sha256)):
        if not folder.exists(name):
            raise ValueError(f"{where} names {name} for words, and it is not in {folder}. Copy it there.")
        contents.append(folder.read_bytes(name))
        if known not in ("", got := hashlib.sha256(contents[-1]).hexdigest()):
            raise ValueError(
                f"{folder}/{name} is another file than {where} names: sha256 {got[:16]}..., expected {known[:16]}.... "
                f"Copy it again, or write a manifest of this one."
            )
    files = TextFiles(*contents)
    return _with_hashes(told, files), files


def _with_hashes(told: TextManifest, files: TextFiles) -> TextManifest:
    tower, tokenizer = (hashlib.sha256(content).hexdigest() for content in (files.tower, files.tokenizer))
    return dataclasses.replace(told, sha256=tower, tokenizer_sha256=tokenizer)
