"""Drawn places as a collection, made by the library's own functions, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retrieval.artifacts.collection import read_catalog
from retrieval.artifacts.folder import Folder
from retrieval.data.demo.places import building, photograph, write_scenes
from retrieval.data.demo.settings import SceneConfig
from retrieval.data.settings import SplitConfig
from retrieval.geometry import extraction, pairing, reconstruction, stages
from retrieval.geometry.settings import FeatureConfig, ReconstructConfig
from retrieval.images.pixels import encode_jpeg
from retrieval.images.settings import PrepareConfig
from tests.support.workspace import make_collection

SMALL = SceneConfig(num_places=3, images_per_place=6, num_distractors=3, size=360, seed=2)

PREPARE = PrepareConfig(crop="fit", size=480)


def drawn_jpeg(place: int, number: int) -> bytes:
    """A photo of a building of SMALL."""
    return encode_jpeg(photograph(building(7, place), SMALL, place, number))


def collect(folder: Folder, source: Path, split: SplitConfig, part_size: int = 8) -> Folder:
    """Ingest photos, or a manifest of them, here."""
    make_collection(folder, source, PREPARE, split, part_size)
    return folder


def small_places(root: Path) -> Folder:
    """Three places seen six times, three seen once; all of them train."""
    source = write_scenes(root / "photos", SMALL)
    return collect(
        Folder.of(root / "collection"), source, SplitConfig(keep_singles=True, test_fraction=0, val_fraction=0)
    )


def reconstruct_here(
    collection: Folder,
    out: Folder,
    config: ReconstructConfig,
    *,
    photos: int = 16,
    pairs: int = 16,
    described: Folder | None = None,
) -> dict[str, Any]:
    """Every stage of the job in turn, without Ray. Args: photos, pairs: in a block. described: features kept before."""
    splits = ("train",)
    wanted = read_catalog(collection, splits)
    parts = sorted(set(wanted["part"].to_pylist()))
    if described is None:
        for part in parts:
            extraction.extract_part(collection, out, part, splits, FeatureConfig(max_features=config.max_features))
    find_pairs_here(collection, out, config, parts, -(-len(wanted) // photos), photos, described)
    for round_ in range(1 + config.rounds):
        if round_:
            pairing.follow_links(out, round_, config)
        for block in range(-(-len(out.read_table(stages.pairs_name(round_))) // pairs)):
            reconstruction.verify_block(out, round_, block, pairs, config, described=described)
    joined = reconstruction.group(out, config)
    for number in range(joined["groups"]):
        reconstruction.map_group(out, number, config, described=described)
    return reconstruction.assemble(out, joined["groups"], config, described)


def find_pairs_here(
    collection: Folder,
    out: Folder,
    config: ReconstructConfig,
    parts: list[int],
    blocks: int,
    size: int,
    described: Folder | None = None,
) -> None:
    """The stages between features and checks."""
    pairing.train_vocabulary(collection, out, ("train",), config, described)
    for part in parts:
        pairing.assign_part(out, part, described)
    num = pairing.list_photos(collection, out, ("train",))
    for number in range(-(-num // pairing.SLICE)):
        pairing.write_slice(out, number)
    for block in range(blocks):
        pairing.look_up_block(out, block, size, num, config)
    pairing.join_blocks(out, size, min(num, blocks * size))
