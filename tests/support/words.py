"""A small network of photos and words, trained here on drawn shapes: two files in ONNX, a tokenizer, a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import tokenizers
import torch
from onnx import TensorProto, helper, numpy_helper
from tokenizers import models, normalizers, pre_tokenizers, processors

from retrieval.artifacts.folder import Folder
from retrieval.images.pixels import decode_stored, encode_jpeg
from retrieval.images.settings import PrepareConfig
from retrieval.models.settings import ModelConfig
from tests.support.workspace import INDEXED, Workspace, publish_made

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (30, 60, 200), "yellow": (220, 200, 30)}
SHAPES = ("circle", "square", "triangle")
NAMES = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
WORDS = ("<pad>", "<s>", "</s>", "<unk>", *COLOURS, *SHAPES)
PAD, SIDE, DIM, CONTEXT = 0, 32, 16, 8


def tokenizer(words: tuple[str, ...] = WORDS, pad: int | None = None) -> bytes:
    """tokenizer.json: a number a word, lower case, between <s> and </s>. Args: pad: what the file says of padding."""
    numbers = {word: number for number, word in enumerate(words)}
    made = tokenizers.Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(name, numbers[name]) for name in ("<s>", "</s>")]
    )
    if pad is not None:
        made.enable_padding(pad_id=pad, length=CONTEXT)
    return made.to_str().encode()


def text_tower(
    table: np.ndarray | None = None,
    matrix: np.ndarray | None = None,
    *,
    mask: bool = True,
    batch: int | str = "n",
    context: int | str = CONTEXT,
    dtype: int = TensorProto.INT64,
    second: bool = False,
) -> onnx.ModelProto:
    """Mean over the tokens' rows of a table (num, H), only the mask's if it has one, times a matrix (H, dim)."""
    rng = np.random.default_rng(3)
    table = rng.normal(size=(len(WORDS), 12)) if table is None else table
    matrix = rng.normal(size=(table.shape[1], DIM)) if matrix is None else matrix
    names = ("input_ids", "attention_mask") if mask else ("input_ids",)
    nodes = [helper.make_node("Cast", ["input_ids"], ["wide"], to=TensorProto.INT64)]
    nodes.append(helper.make_node("Gather", ["table", "wide"], ["rows"]))
    if mask:
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["told"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["told", "last"], ["weights"]),
            helper.make_node("Mul", ["rows", "weights"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "middle"], ["sum"], keepdims=0),
            helper.make_node("ReduceSum", ["weights", "middle"], ["num"], keepdims=0),
            helper.make_node("Div", ["sum", "num"], ["mean"]),
        ]
    else:
        nodes.append(helper.make_node("ReduceMean", ["rows"], ["mean"], axes=[1], keepdims=0))
    nodes.append(helper.make_node("MatMul", ["mean", "matrix"], ["text_embeds"]))
    tensors = {"table": table.astype(np.float32), "matrix": matrix.astype(np.float32)}
    tensors |= {"last": np.array([2], np.int64), "middle": np.array([1], np.int64)}
    outputs = [helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, [batch, matrix.shape[1]])]
    if second:
        outputs.append(helper.make_tensor_value_info("rows", TensorProto.FLOAT, None))
    return _model(
        nodes, [helper.make_tensor_value_info(name, dtype, [batch, context]) for name in names], outputs, tensors
    )


def image_tower(weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Two convolutions of stride 4 and 2 and a matrix: (n, 3, SIDE, SIDE) -> (n, DIM)."""
    nodes = [
        helper.make_node("Conv", ["pixel_values", "one.weight", "one.bias"], ["a"], strides=[4, 4]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "two.weight", "two.bias"], ["c"], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "last.weight", "last.bias"], ["image_embeds"], transB=1),
    ]
    given = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    taken = helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["n", DIM])
    return _model(nodes, [given], [taken], dict(weights))


def _model(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], tensors: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    read = {name for node in nodes for name in node.input}
    held = [numpy_helper.from_array(value, name) for name, value in tensors.items() if name in read]
    graph = helper.make_graph(nodes, "made", inputs, outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def draw(name: str, rng: np.random.Generator) -> np.ndarray:
    """(48, 48, 3) uint8 RGB: a shape of a colour, somewhere, on grey."""
    colour, shape = name.split()
    image = np.full((48, 48, 3), rng.integers(90, 150), np.uint8)
    x, y = (int(place) for place in rng.integers(20, 29, size=2))
    half = int(rng.integers(12, 17))
    paint = tuple(int(value) for value in np.clip(np.array(COLOURS[colour]) + rng.integers(-20, 21, 3), 0, 255))
    if shape == "circle":
        cv2.circle(image, (x, y), half, paint, -1)
    elif shape == "square":
        cv2.rectangle(image, (x - half, y - half), (x + half, y + half), paint, -1)
    else:
        corners = np.array([[x, y - half], [x - half, y + half], [x + half, y + half]])
        cv2.fillPoly(image, [corners], paint)
    return image


class _Pair(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Conv2d(3, 16, 4, 4), torch.nn.Conv2d(16, 16, 2, 2)
        self.last = torch.nn.Linear(16 * (SIDE // 8) ** 2, DIM)
        self.table = torch.nn.Parameter(torch.randn(len(WORDS), 12) / 3)
        self.matrix = torch.nn.Parameter(torch.randn(12, DIM) / 3)

    def photos(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.two(self.one(x).relu()).relu().flatten(1))

    def words(self, ids: torch.Tensor) -> torch.Tensor:
        weights = (ids != PAD)[..., None].float()
        return (self.table[ids] * weights).sum(1) / weights.sum(1) @ self.matrix


def train_pair(steps: int = 150) -> _Pair:
    """Photos and names of one kind near each other, others apart (softmax both ways, temperature 0.1)."""
    rng = np.random.default_rng(0)
    kinds = np.arange(40 * len(NAMES)) % len(NAMES)
    stored = [decode_stored(encode_jpeg(draw(NAMES[kind], rng)), SIDE) for kind in kinds]
    pixels = torch.from_numpy(np.stack(stored)).permute(0, 3, 1, 2).float() / 127.5 - 1
    read = tokenizers.Tokenizer.from_str(tokenizer(pad=PAD).decode())
    names = torch.tensor([one.ids for one in read.encode_batch(NAMES)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pair = _Pair()
        optimizer = torch.optim.Adam(pair.parameters(), lr=0.01)
        for step in range(steps):
            rows = np.random.default_rng(step).permutation(len(kinds))[:96]
            x = torch.nn.functional.normalize(pair.photos(pixels[rows]))
            scores = x @ torch.nn.functional.normalize(pair.words(names)).T / 0.1
            loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(kinds[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return pair


def write_pair(folder: Path, pair: _Pair | None = None, *, text: str = "", **told: object) -> Path:
    """The folder that somebody would bring. Args: text: more lines of the table `text`. told: of the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().numpy() for name, value in (pair or _Pair()).named_parameters()}
    (folder / "image.onnx").write_bytes(image_tower(weights).SerializeToString())
    (folder / "text.onnx").write_bytes(text_tower(weights["table"], weights["matrix"]).SerializeToString())
    (folder / "tokenizer.json").write_bytes(tokenizer())
    lines = {"name": '"shapes"', "dim": DIM, "size": SIDE, "licence": '"MIT"', **told}
    lines |= {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    manifest = "".join(f"{name} = {value}\n" for name, value in lines.items())
    (folder / "network.toml").write_text(f"{manifest}\n[text]\ncontext = {CONTEXT}\n{text}")
    return folder


def make_words_workspace(root: Path, each: int = 3) -> Workspace:
    """A published gallery of drawn shapes, `each` of every kind, by a pair that was trained on others."""
    drawn, folder, rng = root / "drawn", root / "workspace", np.random.default_rng(1)
    for name in NAMES:
        (drawn / name).mkdir(parents=True)
        for number in range(each):
            (drawn / name / f"{number}.jpg").write_bytes(encode_jpeg(draw(name, rng)))
    network = write_pair(root / "pair", train_pair())
    made = Folder.of(folder)
    config = ModelConfig(backbone=f"onnx:{network}")
    collection = publish_made(made, drawn, PrepareConfig(size=SIDE, crop="none"), config)
    rows = collection.read_table("catalog.parquet", columns=["image_id", "label", "split"]).to_pylist()
    labels = {row["image_id"]: row["label"] for row in rows if row["split"] in INDEXED}
    return Workspace(folder=made, photos={name: drawn / name for name in labels}, labels=labels)
