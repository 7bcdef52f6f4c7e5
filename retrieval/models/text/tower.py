"""A text tower: checked by what its file says of itself, tried out, and run in onnxruntime. Without PyTorch."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from retrieval.artifacts.folder import Folder
from retrieval.models.engines import graph, runtime
from retrieval.models.engines.exported import l2n
from retrieval.models.engines.manifest import NetworkManifest
from retrieval.models.spec import ModelSpec
from retrieval.models.text.manifest import TEXT_FILE, TOKENIZER_FILE, TextFiles, TextManifest
from retrieval.models.text.tokens import Tokens

_TYPES = ("int64", "int32")
_LEAST_COSINE = 0.999  # of the embeddings of one text, alone and beside others
_TRIED = 4  # tokens of each text that it is tried out on


class TextTower:
    """Texts to embeddings of length `dim`, in the space of the network's photos. `called` names it in messages."""

    def __init__(
        self, network: NetworkManifest, files: TextFiles, *, threads: int | None = None, gpu: bool = False
    ) -> None:
        """Checks both files and opens the tower: of a thousand million bytes, it keeps none but the session's.

        Args: threads: of a run. gpu: run on one, where onnxruntime finds it.

        Raises: ValueError if the files are not what the manifest says, do not go together, or do not run.
        """
        assert network.text is not None
        self.text, self.dim = network.text, network.dim
        self.called = f"The text tower of {network.name}"
        self._check_sha(files)
        self.tokens = Tokens(files.tokenizer, self.text)
        runtime.check(files.tower, self.called)
        told = graph.read_graph(files.tower)
        self._ids, self._mask = self._inputs(told.inputs)
        self._output = graph.output_of(told.outputs, self.text.output, self.dim, self.called)
        known = told.looked_up.get(self._ids.name)
        if known is not None and self.tokens.num > known:
            raise ValueError(
                f"{self.called} knows {known} tokens, and its tokenizer numbers them up to {self.tokens.num - 1}: they "
                f"were not made for each other. Take the tokenizer of this tower."
            )
        entries = {"session.disable_quant_qdq": "1"} if told.weights_are_packed else {}
        self._session = runtime.open_session(told.content, threads=threads, gpu=gpu, entries=entries)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(N, dim) float32, unit norm.

        Raises: tokens.TooLong; ValueError for a text of which nothing is left, or an output that is no number.
        """
        return self.run(*self.tokens.batch(texts))

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The same of tokens and their mask, as `Tokens.batch` gives them."""
        step = self._ids.shape[0] or len(ids)
        parts = [self._run_padded(ids[start:], mask[start:], step) for start in range(0, len(ids), step)]
        out = np.concatenate(parts).astype(np.float32)[: len(ids)]
        if not np.isfinite(out).all():
            raise ValueError(f"{self.called} gives values that are no numbers. Export it again in float32.")
        return l2n(out)

    def _run_padded(self, ids: np.ndarray, mask: np.ndarray, step: int) -> np.ndarray:
        """One run of exactly `step` texts, the last repeated where there are fewer: (step, dim)."""
        rows = np.minimum(np.arange(step), len(ids) - 1)
        given = {self._ids.name: ids[rows].astype(self._ids.dtype)}
        if self._mask is not None:
            given[self._mask.name] = mask[rows].astype(self._mask.dtype)
        try:
            out = self._session.run([self._output], given)[0]
        except Exception as error:  # onnxruntime's errors share no class but this
            raise ValueError(f"{self.called} failed on tokens {ids.shape}: {str(error)[:200]}") from error
        return np.asarray(out).reshape(step, -1)

    def _check_sha(self, files: TextFiles) -> None:
        told = ((self.text.sha256, files.tower), (self.text.tokenizer_sha256, files.tokenizer))
        if any(known != hashlib.sha256(content).hexdigest() for known, content in told):
            raise ValueError(
                f"{self.called} or its tokenizer is another file than its manifest names (sha256). Copy both again, or "
                f"write a manifest of these."
            )

    def _inputs(self, inputs: Sequence[graph.Tensor]) -> tuple[graph.Tensor, graph.Tensor | None]:
        """Tokens, and the mask where the graph asks for one."""
        masks = [one for one in inputs if "mask" in one.name.lower()]
        others = [one for one in inputs if one not in masks]
        if len(others) != 1 or len(masks) > 1:
            names = ", ".join(one.name for one in inputs)
            raise ValueError(
                f"{self.called} has the inputs {names or 'none'}, expected the tokens, and an attention_mask if it "
                f"wants one. Export it with these alone."
            )
        for one in inputs:
            fits = len(one.shape) == 2 and one.shape[1] in (graph.ANY, self.text.context)
            if not fits or one.dtype not in _TYPES:
                raise ValueError(
                    f"{self.called} takes {graph.shown(one)} of {one.dtype}, expected (texts, {self.text.context}) of "
                    f"{' or '.join(_TYPES)}. Correct context, or export it again."
                )
        return others[0], masks[0] if masks else None


def take_text(network: NetworkManifest, files: TextFiles) -> TextManifest:
    """The text tower of a network that is about to be taken, tried out; its manifest with what was left open.

    Raises: ValueError for files that do not go together, or a tower that gives no embeddings that differ, the same
        alone and beside others.
    """
    tower = TextTower(network, files)
    _try_out(tower)
    return dataclasses.replace(tower.text, pad=tower.tokens.pad)


def open_text(folder: Folder, spec: ModelSpec, *, threads: int | None = None, gpu: bool = False) -> TextTower | None:
    """The text tower of a sealed bundle, opened; None where it has none.

    Raises: ValueError for files that are not those that were sealed, or a tower that does not run.
    """
    if spec.network is None or spec.network.text is None:
        return None
    files = TextFiles(folder.read_bytes(TEXT_FILE), folder.read_bytes(TOKENIZER_FILE))
    return TextTower(spec.network, files, threads=threads, gpu=gpu)


def _try_out(tower: TextTower) -> None:
    """With tokens drawn at random: which words a tokenizer knows is not known here."""
    num = min(_TRIED, tower.text.context, tower.tokens.num // 3 or 1)
    drawn = np.random.default_rng(0).permutation(tower.tokens.num)[: 3 * num]
    ids, mask = tower.tokens.filled(drawn.reshape(-1, num).tolist())
    together, called = tower.run(ids, mask), tower.called
    if together.shape[1] != tower.dim:
        raise ValueError(
            f"{called} gives {together.shape[1]} values a text, and the network {tower.dim} a photo: they are not of "
            f"one pair. Take both towers of one network."
        )
    if np.ptp(together, axis=0).max() < 1e-6:
        raise ValueError(f"{called} gives the same for different texts. Check output and context of its manifest.")
    alone = np.concatenate([tower.run(ids[row : row + 1], mask[row : row + 1]) for row in range(len(ids))])
    if float((alone * together).sum(axis=1).min()) < _LEAST_COSINE:
        raise ValueError(f"{called} gives a text another embedding alone than beside others. Export it in eval mode.")
