"""From a collection's photographs to training tuples, nobody labelling anything: the work of each stage, by parts.

    features   of each part of the collection: see `extraction`   features/part-N.parquet
    pairs      each photo with the k most alike: see `pairing`    photos.parquet, pairs/round-R.parquet
    links      pairs that one two-view geometry explains          links/round-R/block-N.parquet
    groups     photos that strong links join, mapped together;    groups.parquet, keyed/, groups/N/models/
               too many of them in parts, which `groups` joins
    tuples     who shares points with whom                        images.parquet, tuples.parquet, models/

Every file appears whole under its name, made from the same inputs to the same bytes, so any stage may be done again.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse
from scipy.sparse import csgraph

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.progress import Progress, counted, silent
from retrieval.geometry import mapping, tuples
from retrieval.geometry.extraction import NOBODY, kept_features
from retrieval.geometry.groups.joining import join
from retrieval.geometry.groups.keyed import Members, links_of, members_of, write_keyed
from retrieval.geometry.groups.splitting import MAX_GROUP, group_all
from retrieval.geometry.matching.two_views import verify
from retrieval.geometry.settings import MIN_LINK, ReconstructConfig
from retrieval.geometry.sparse_model import SparseModel, read_model, without, write_model
from retrieval.geometry.stages import (
    LINKS,
    left_out,
    links_name,
    links_of_rounds,
    pairs_name,
    read_rows,
    write_left_out,
)
from retrieval.images.pixels import BadImage

# Why a photo is in no model.
NO_KEYPOINTS = "too few local features"
NO_LINK = "no other photo fits its geometry"
WEAK_LINK = "linked too weakly to be mapped"
NOT_MAPPED = "linked, but not in any model"
SMALL_GROUP = "its group is smaller than a model"


def verify_block(
    out: Folder,
    round_: int,
    block: int,
    size: int,
    config: ReconstructConfig,
    progress: Progress = silent,
    described: Folder | None = None,
) -> dict[str, Any]:
    """Check pairs [block * size, ...) of a round, unless it is done. Returns block, taken, links, resumed.

    Args: described: where the photos' local features are kept; None: in `out`.
    """
    name = links_name(round_, block)
    resumed = (done := out.done(name)) is not None
    if done is None:
        pairs = read_rows(out, pairs_name(round_), block * size, size)
        kept, rows = kept_features(described or out), []
        for pair in counted(pairs.to_pylist(), "pairs", progress):
            fit = verify(*(kept[pair[f"part_{photo}"], pair[f"row_{photo}"]] for photo in "ab"))
            if fit.num_inliers >= config.weak_inliers:
                found = {"num_inliers": fit.num_inliers, "matches": fit.matches.tobytes()}
                rows.append({"a": pair["a"], "b": pair["b"]} | found)
        counts = {"taken": len(pairs), "links": len(rows)}
        done = out.write_table(name, pa.Table.from_pylist(rows, LINKS), about=counts)
    return {"block": block, **done.about, "resumed": int(resumed)}


def group(out: Folder, config: ReconstructConfig) -> dict[str, int]:
    """Join photos by links: groups.parquet holds each photo's group to map (-1: none) and its cluster.

    A group of more than `MAX_GROUP` photos is several: `whole` is the first of them.
    """
    photos = out.read_table("photos.parquet")
    links = links_of_rounds(out, 1 + config.rounds)
    a, b, inliers = (links[name].to_numpy() for name in ("a", "b", "num_inliers"))
    strong = inliers >= config.strong_inliers
    joined, clusters = components(len(photos), a[strong], b[strong]), components(len(photos), a, b)
    links_of = (a[strong], b[strong], inliers[strong])
    groups = group_all(joined, *links_of, least=config.min_images, limit=MAX_GROUP)
    linked = np.zeros((2, len(photos)), dtype=bool)  # at all, strongly
    for at, kept in enumerate((np.ones(len(a), bool), strong)):
        linked[at, a[kept]] = linked[at, b[kept]] = True
    cluster = np.unique(clusters, return_inverse=True)[1].astype(np.int32)
    columns = {"group": groups.own, "whole": groups.whole, "cluster": cluster, "linked": linked[0], "strong": linked[1]}
    out.write_table("groups.parquet", pa.table({"image_id": photos["image_id"], **columns}), about={})
    write_keyed(out, groups.members[:, 0], groups.members[:, 1], links)
    return {"links": len(links), "strong": int(strong.sum()), "groups": int(groups.own.max(initial=-1)) + 1}


def components(num: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(num,) int64: the smallest row that each row is joined with by the edges (a, b), directly or through others."""
    edges = sparse.coo_array((np.ones(len(a), bool), (a, b)), shape=(num, num))
    labels = csgraph.connected_components(edges, directed=False)[1]
    return np.unique(labels, return_index=True)[1][labels]


def map_group(
    out: Folder,
    number: int,
    config: ReconstructConfig,
    without: Mapping[int, BadImage] = NOBODY,
    described: Folder | None = None,
) -> dict[str, Any]:
    """Map one group, unless it is done: its models under groups/<number>/.

    Args: without: photos to leave out, by their position in the group, and why. described: as `verify_block`.

    Returns: group, taken, broken, models, registered, resumed.
    """
    folder = out / "groups" / f"{number:05d}"
    resumed = (done := folder.done("done.json")) is not None
    if done is None:
        members = members_of(out, number)
        image_ids = members.image_ids
        kept = [at for at in range(len(members)) if at not in without]
        models = _kept(_mapped(out, number, members, kept, config, described), config)
        for at, model in enumerate(models):
            write_model(folder, at, model)
        write_left_out(out, "models", number, {image_ids[at]: bad for at, bad in without.items()})
        found = {"models": len(models), "registered": sum(len(m.image_ids) for m in models)}
        counts = {"taken": len(members), "broken": len(without), **found}
        done = folder.write_json("done.json", found, about=counts)
    return {"group": number, **done.about, "resumed": int(resumed)}


def try_mapping(
    out: Folder,
    number: int,
    config: ReconstructConfig,
    only: Sequence[int],
    progress: Progress = silent,
    described: Folder | None = None,
) -> list[str]:
    """Map these photos of a group, by their positions, and write nothing. Returns the image_ids of the whole group."""
    members = members_of(out, number)
    if only:
        _mapped(out, number, members, only, config, described)
    return members.image_ids


def _mapped(
    out: Folder,
    number: int,
    members: Members,
    kept: Sequence[int],
    config: ReconstructConfig,
    described: Folder | None,
) -> list[SparseModel]:
    """The models of a group. Args: kept: its photos to map, by their positions."""
    stored = kept_features(described or out)
    name_of = {int(members.rows[at]): members.image_ids[at] for at in kept}
    features = {members.image_ids[at]: stored[members.places[at]] for at in kept}
    links = [(name_of[a], name_of[b], rows) for a, b, rows in links_of(out, number) if a in name_of and b in name_of]
    return mapping.map_images(features, links, min_images=config.min_images)


def _kept(models: Sequence[SparseModel], config: ReconstructConfig) -> list[SparseModel]:
    """The models, largest first, without the images that a larger one has; what is left too small is dropped."""
    taken: set[str] = set()
    kept = []
    for model in models:
        own = without(model, taken)
        if len(own.image_ids) >= config.min_images and len(own.points) >= config.min_points:
            kept.append(own)
            taken |= set(own.image_ids)
    return kept


def assemble(
    out: Folder, num_groups: int, config: ReconstructConfig, described: Folder | None = None
) -> dict[str, Any]:
    """All groups' models under models/, and the two tables. Returns counts, and `unregistered`, why -> how many.

    Raises: ValueError if no photo shares a place with another.
    """
    groups, photos = out.read_table("groups.parquet"), out.read_table("photos.parquet")
    image_ids, models = groups["image_id"].to_pylist(), _models(out, groups, num_groups, config)
    left = left_out(out) | ({} if described is None else left_out(described))
    images = tuples.images_table(image_ids, groups["cluster"].to_numpy(), models, _reasons(groups, photos, left))
    found = tuples.tuples_table(images, models, min_shared=config.min_shared)
    if not len(found):
        unregistered = Counter(reason for reason in images["reason"].to_pylist() if reason is not None)
        raise ValueError(
            f"No two of the {len(image_ids)} photos share a place that can be reconstructed ({dict(unregistered)}), so "
            f"there is nothing to train on. Give more photos of each place, taken from places near each other; or, if "
            f"the photos are labelled, --labels-as-clusters."
        )
    images, found = tuples.divide(images, found, val_fraction=config.val_fraction, seed=config.seed)
    return tuples.write(out, images, found, models)


def _models(out: Folder, groups: pa.Table, num_groups: int, config: ReconstructConfig) -> list[SparseModel]:
    """Models of all groups, in their order; those of groups that are one whole joined, and no photo in two of them."""
    own, whole = groups["group"].to_numpy(), groups["whole"].to_numpy()
    whole_of = dict(zip(own.tolist(), whole.tolist(), strict=True))
    found: dict[int, list[SparseModel]] = {}
    for number in range(num_groups):
        folder = out / "groups" / f"{number:05d}"
        again = [read_model(folder, at) for at in range(folder.read_json("done.json")["models"])]
        found.setdefault(whole_of.get(number, number), []).extend(again)
    parts = Counter(whole_of.values())
    models: list[SparseModel] = []
    for first, several in found.items():
        if parts[first] > 1:
            several = _kept(_by_size(join(_by_size(several))), config)
        models += [dataclasses.replace(model, obs_feature=None) for model in several]
    return models


def _by_size(models: Sequence[SparseModel]) -> list[SparseModel]:
    """The largest first."""
    return sorted(models, key=lambda model: (-len(model.image_ids), model.image_ids))


def _reasons(groups: pa.Table, photos: pa.Table, left: Mapping[str, str]) -> dict[str, str]:
    """Why each photo would be in no model. Args: left: image_id -> why a stage left it out."""
    reasons: dict[str, str] = {}
    for row, num in zip(groups.to_pylist(), photos["num"].to_pylist(), strict=True):
        if row["group"] >= 0:
            reason = NOT_MAPPED
        elif row["strong"]:
            reason = SMALL_GROUP
        elif row["linked"]:
            reason = WEAK_LINK
        else:
            reason = NO_LINK if num >= MIN_LINK else NO_KEYPOINTS
        reasons[row["image_id"]] = reason
    return reasons | {image_id: reason for image_id, reason in left.items() if image_id in reasons}
