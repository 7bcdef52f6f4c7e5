"""Photos of real places, labels hidden: what is reconstructed; tuples and negatives are what they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from retrieval.artifacts import tuples
from retrieval.artifacts.collection import CATALOG_SCHEMA
from retrieval.artifacts.folder import Folder
from retrieval.geometry.settings import ReconstructConfig
from retrieval.images import pixels
from retrieval.images.pixels import encode_jpeg, fit
from retrieval.training.tuple_mining import mine_negatives
from tests.support.places import reconstruct_here

# Of each, so many neighbouring photos. entry_P10 is of the same building as castle_P30, which is not used here.
PLACES = {"sceaux_castle": 11, "entry_P10": 10, "herzjesu_P25": 8}
NUM_DISTRACTORS, SIZE = 10, 512
CONFIG = ReconstructConfig(max_features=1280, num_words=1024, vocabulary_sample=40_000, num_candidates=10)


@pytest.fixture(scope="module")
def found(real_faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Tables of 29 photos of three places and 10 of other things, in one part, their names the only labels."""
    landmarks, out = real_faces.parents[1] / "landmarks", Folder.of(tmp_path_factory.mktemp("real") / "tuples")
    files = [path for place, num in PLACES.items() for path in sorted((landmarks / "sfm" / place).iterdir())[:num]]
    files += sorted((landmarks / "distractors").iterdir())[::50][:NUM_DISTRACTORS]
    collection = Folder.of(out.path + "-collection")
    jpegs = [encode_jpeg(fit(pixels.decode(path.read_bytes())[0], SIZE)) for path in files]
    collection.write_table("images/part-00000.parquet", pa.table({"jpeg": jpegs}))
    rows = [{"image_id": f"{path.parent.name}/{path.name}", "split": "train", "part": 0} for path in files]
    rows = [row | {"row": at} for at, row in enumerate(rows)]
    collection.write_table("catalog.parquet", pa.Table.from_pylist(rows, CATALOG_SCHEMA))
    reconstruct_here(collection, out, CONFIG)
    return out


def place_of(image_id: str) -> str:
    """The folder; a distractor is a place of its own."""
    folder = image_id.partition("/")[0]
    return folder if folder in PLACES else image_id


@pytest.mark.realdata
def test_most_photos_of_each_place_are_registered_and_no_model_mixes_two(found: Folder) -> None:
    rows = found.read_table("images.parquet").to_pylist()
    assert len(rows) == sum(PLACES.values()) + NUM_DISTRACTORS
    registered = [row for row in rows if row["status"] == tuples.REGISTERED]
    for place, num in PLACES.items():
        assert sum(place_of(row["image_id"]) == place for row in registered) >= 0.7 * num, place
    for model in {row["model"] for row in registered}:
        assert len({place_of(row["image_id"]) for row in registered if row["model"] == model}) == 1
    assert {place_of(row["image_id"]) for row in registered} == set(PLACES)  # no distractor is in a model


@pytest.mark.realdata
def test_query_and_candidates_show_one_place(found: Folder) -> None:
    rows = found.read_table("tuples.parquet").to_pylist()
    same = [place_of(row["query"]) == place_of(other) for row in rows for other in row["candidates"]]
    assert len(same) >= 100
    assert np.mean(same) >= 0.99


@pytest.mark.realdata
def test_negatives_are_of_other_places_however_alike_they_look(found: Folder) -> None:
    """With embeddings that are nearest to the query's own place, the worst case, and with random ones."""
    known = tuples.as_set(found.read_table("images.parquet"), found.read_table("tuples.parquet"))
    names = [place_of(image_id) for image_id in known.image_ids]
    places = np.unique(names, return_inverse=True)[1]
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(len(places), 64)))
    for vectors in (noise, torch.eye(64)[places].double() + 0.05 * noise):
        mined = mine_negatives(vectors[known.queries], known.clusters[known.queries], vectors, known.clusters, num=5)
        asked = places[known.queries]
        assert mined.shape == (len(asked), 5) and len(asked) >= 20
        assert (places[mined] != asked[:, None]).all()
