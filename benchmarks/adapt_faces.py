"""What an adapter does to a frozen face network: on people it was not trained on, and on photos unlike the network's.

    python benchmarks/adapt_faces.py --photos LFW --people 400

LFW's faces, found and aligned once; the same crops shrunk to 32 pixels, blurred and enlarged again; drawn people. Each
domain's people are divided into train, val and test. Adapters are trained on one domain, or on two together, and chosen
on its val people, by the functions of `python -m ray_jobs.adapt`. Then what was kept is asked for the test people of
all domains: differences from the network alone, with their standard errors. --vectors FILE keeps the embeddings.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.artifacts.hashing import plain
from retrieval.data.demo.people import sample_person, sample_shot
from retrieval.data.demo.portrait import render
from retrieval.evaluation.metrics import leave_one_out
from retrieval.images.faces import make_detector
from retrieval.images.pixels import BadImage, decode, encode_jpeg
from retrieval.images.preparation import prepare
from retrieval.images.settings import PrepareConfig
from retrieval.models.adapters.adapter import Adapter
from retrieval.models.embedder import Embedder
from retrieval.models.engines.frozen import from_file
from retrieval.models.known_weights import find
from retrieval.models.settings import ModelConfig
from retrieval.training.adapters.choice import IDENTITY, choose, difference
from retrieval.training.adapters.fit import fit
from retrieval.training.adapters.settings import AdaptConfig
from retrieval.training.adapters.vectors import Known, Side, pairs_by_label
from retrieval.training.group_mining import label_numbers

_LFW, _SMALL, _DRAWN = "lfw", "lfw 32 px", "drawn"
_PARTS = {"train": 0.5, "val": 0.2, "test": 0.3}
_TRAINED_ON = ((_LFW,), (_SMALL,), (_DRAWN,), (_LFW, _SMALL))


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Measure adapters of SFace."""

    photos: str
    """LFW's folder, one folder a person."""
    people: int = 400
    """People of it that are taken, spread over the folder; 0: all."""
    drawn: int = 80
    """People that are drawn, eight photos each."""
    vectors: str = ""
    """File (.npz) that keeps the embeddings, for another run; empty: none."""
    seed: int = 0
    """Divides the people."""
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    """How adapters are trained."""


@dataclass(frozen=True, slots=True)
class Domain:
    """Embeddings (N, D) of photos of people (N,)."""

    vectors: np.ndarray
    people: np.ndarray


def main(cfg: Config) -> None:
    """Print the choice for each set trained on, and the table."""
    domains = read(cfg)
    for name, domain in domains.items():
        print(f"{name:12} {len(domain.people):5} photos of {len(np.unique(domain.people))} people")
    kept: dict[str, Adapter | None] = {}
    for names in _TRAINED_ON:
        kept[" + ".join(names)] = trained(cfg, [domains[name] for name in names], " + ".join(names))
    print(
        f"\n{'test people of':14}{'SFace: recall@1':>16}{'mAP':>9}   after adapting on: change of recall@1, mAP (error)"
    )
    for name, domain in domains.items():
        test = part(domain, "test", cfg.seed)
        plain_ = leave_one_out(test.vectors, test.people, ks=(1,))
        print(f"{name:14}{plain_.values['recall@1']:>16.4f}{plain_.values['mAP']:>9.4f}")
        for on, adapter in kept.items():
            if adapter is None:
                print(f"{'':28} {on:20} {'identity: nothing changes':>30}")
                continue
            other = leave_one_out(adapter(test.vectors), test.people, ks=(1,))
            hits = (other.first_hit == 0).astype(float) - (plain_.first_hit == 0)
            hits[plain_.first_hit < 0] = np.nan
            labels = label_numbers(test.people)
            recall, recall_error = difference(hits, labels)
            gain, error = difference(other.average_precision - plain_.average_precision, labels)
            print(f"{'':28} {on:20} {recall:+.4f} ({recall_error:.4f})   {gain:+.4f} ({error:.4f})", flush=True)


def trained(cfg: Config, domains: Sequence[Domain], name: str) -> Adapter | None:
    """The adapter that is kept on val, None for the identity; several domains are of the same people."""
    sides = {}
    for which in ("train", "val"):
        parts = [part(domain, which, cfg.seed) for domain in domains]
        vectors, people = (np.concatenate([getattr(one, of) for one in parts]) for of in ("vectors", "people"))
        sides[which] = Side(vectors=vectors, labels=label_numbers(people), left_out=0)
    known = Known(**sides, pairs=pairs_by_label(sides["train"].labels, cfg.adapt.seed))
    fitted = {one: fit(one, known, cfg.adapt) for one in cfg.adapt.candidates}
    choice = choose({one: found.adapter for one, found in fitted.items()}, known.val, cfg.adapt.least_gain)
    photos, people = len(known.train.labels), known.val.num_labels
    print(f"\nadapted on {name}: {photos} photos; chosen on {people} people: {choice.winner}")
    for one, figures in choice.figures.items():
        took = (
            ""
            if one not in fitted or not fitted[one].history
            else f"   {epoch_ms(fitted[one].history):.0f} ms an epoch"
        )
        print(
            f"  {one:10} recall@1 {figures.values['recall@1']:.4f}  mAP {figures.values['mAP']:.4f}  "
            f"gain {figures.gain:+.4f} ({figures.error:.4f}){took}",
            flush=True,
        )
    return None if choice.winner == IDENTITY else fitted[choice.winner].adapter


def epoch_ms(history: Sequence[dict[str, float]]) -> float:
    return 1e3 * float(np.median([row["seconds"] for row in history]))


def part(domain: Domain, which: str, seed: int) -> Domain:
    """Photos of the people of one part, the same people whatever the domain."""
    names = np.unique(domain.people)
    order = np.random.default_rng(seed).permutation(len(names)) / len(names)
    ends = np.cumsum(list(_PARTS.values()))
    number = list(_PARTS).index(which)
    mine = names[(order < ends[number] - 1e-9) & (order >= (ends[number - 1] if number else 0) - 1e-9)]
    rows = np.isin(domain.people, mine)
    return Domain(domain.vectors[rows], domain.people[rows])


def read(cfg: Config) -> dict[str, Domain]:
    """Embeddings of all domains, by SFace, or those that are kept."""
    file = Path(cfg.vectors) if cfg.vectors else None
    if file and file.exists():
        with np.load(file, allow_pickle=False) as found:
            return {name: Domain(found[name], found[f"{name}/people"]) for name in (_LFW, _SMALL, _DRAWN)}
    config = PrepareConfig(crop="aligned", detector="yunet", size=112, margin=0.0)
    place = find("yunet")
    if place is None:
        raise ValueError("YuNet's file is not here. `python -m ray_jobs.weights` says how to get it.")
    network = place.read_bytes()
    net = from_file(ModelConfig(backbone="onnx:sface"), preparation=plain(config), detector=network)
    embedder, detector = Embedder(net), make_detector(config, network)
    faces: dict[str, list[tuple[str, bytes]]] = {_LFW: [], _SMALL: [], _DRAWN: []}
    missed = 0
    for name, source in ((_LFW, lfw(cfg)), (_DRAWN, drawn(cfg))):
        for person, photo in source:
            try:
                face = prepare(photo, config, detector).jpeg
            except BadImage:
                missed += 1
                continue
            faces[name].append((person, face))
            if name == _LFW:
                faces[_SMALL].append((person, small(face)))
    print(f"{missed} photos without a face are left out", flush=True)
    domains = {
        name: Domain(embedder.embed_jpegs([face for _, face in mine]), np.array([person for person, _ in mine]))
        for name, mine in faces.items()
    }
    if file:
        kept: dict[str, Any] = {name: one.vectors for name, one in domains.items()}
        kept |= {f"{name}/people": one.people for name, one in domains.items()}
        np.savez(file, **kept)
    return domains


def lfw(cfg: Config) -> Iterator[tuple[str, bytes]]:
    folders = sorted(path for path in Path(cfg.photos).iterdir() if path.is_dir())
    for folder in folders[:: max(1, len(folders) // (cfg.people or len(folders)))][: cfg.people or None]:
        for path in sorted(folder.iterdir()):
            yield folder.name, path.read_bytes()


def drawn(cfg: Config) -> Iterator[tuple[str, bytes]]:
    for number in range(cfg.drawn):
        person = sample_person(cfg.seed, number)
        for shot in range(8):
            pixels = render(person, sample_shot(cfg.seed, number, shot, person), (178, 218))
            yield f"{number:04}", encode_jpeg(pixels)


def small(face: bytes) -> bytes:
    """112 pixels shrunk to 32, blurred there (sigma 1), and enlarged again."""
    pixels = decode(face)[0]
    tiny = cv2.GaussianBlur(cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA), (0, 0), 1.0)
    return encode_jpeg(cv2.resize(tiny, pixels.shape[1::-1], interpolation=cv2.INTER_CUBIC).astype(np.uint8))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
