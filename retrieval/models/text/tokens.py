"""A text to the numbers of its tokens, by a file of the tokenizers library: JSON, of which nothing is run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.models.text.manifest import TextManifest


class TooLong(ValueError):
    """A text of more tokens than the tower takes: the whole of it, or nothing, is searched for."""


class Tokens:
    """The tokenizer of a text tower. `pad` is the token that fills up, `num` one more than the largest token's number.

    Used from any thread.
    """

    def __init__(self, content: bytes, text: TextManifest) -> None:
        """Args: content: of tokenizer.json.

        Raises: ValueError for what is none, or if the library is not installed.
        """
        try:
            import tokenizers
        except ImportError as error:
            raise ValueError(
                "This network takes words too, and the library that reads its tokenizer is not installed: "
                "pip install '.[text]'."
            ) from error
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(content.decode())
        except Exception as error:  # the library's errors share no class but this
            raise ValueError(
                f"{text.tokenizer} is no tokenizer in the form of the tokenizers library ({str(error)[:120]}). "
                f"transformers writes one: AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)."
            ) from error
        told = self._tokenizer.padding or {}
        self.pad: int = text.pad if text.pad is not None else int(told.get("pad_id", 0))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._context, self._lowercase = text.context, text.lowercase
        self.num = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        if self.num < 2 or self.pad >= self.num:
            raise ValueError(
                f"{text.tokenizer} knows {self.num} tokens, and texts are filled up with number {self.pad}. Correct "
                f"pad."
            )

    def ids(self, text: str) -> list[int]:
        """The tokens of one text, those that begin and end it among them.

        Raises: TooLong; ValueError for a text of which nothing is left.
        """
        ids: list[int] = self._tokenizer.encode(text.lower() if self._lowercase else text).ids
        if len(ids) > self._context:
            raise TooLong(f"the text has {len(ids)} tokens, and this model takes {self._context}. Shorten it")
        if not ids:
            raise ValueError("the text has no word that this model knows. Use others")
        return ids

    def batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(N, context) int64 tokens, filled up behind each text; (N, context) int64, 1 where a token is the text's.

        Raises: as `ids`.
        """
        return self.filled([self.ids(text) for text in texts])

    def filled(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """The same of tokens. Args: rows: none longer than the context."""
        ids = np.full((len(rows), self._context), self.pad, np.int64)
        mask = np.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(row)], mask[place, : len(row)] = row, 1
        return ids, mask
