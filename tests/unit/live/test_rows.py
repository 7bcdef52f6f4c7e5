"""What goes into a row comes out of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.live.rows import COLUMNS as COLUMNS_OF_IMAGES
from retrieval.live.rows import row_of, values_of
from tests.support.gallery import new_image

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)
COLUMNS = ("image_id", "seq", "added", "label", "split", "attributes", "content_hash", "photo", "face", "box", "points")


@given(
    label=st.none() | st.text(),
    attributes=st.none() | st.dictionaries(st.text(), st.sampled_from((-1, 0, 1))),
    box=st.none() | st.lists(NUMBERS, min_size=4, max_size=4),
    quality=st.none() | st.dictionaries(st.text(), st.none() | NUMBERS),
    at=st.integers(0, 2**52),
)
def test_round_trip(label: str | None, attributes: dict, box: list, quality: dict, at: int) -> None:
    image = new_image("g#1", 1, photo="g", label=label, attributes=attributes, box=box, quality=quality, face=1)
    stored = values_of(image) | {"seq": 7, "added": at}
    assert set(COLUMNS_OF_IMAGES) <= stored.keys() and stored["vector"] == image.vector.tobytes()
    tail = (*(stored[name] for name in ("quality", "width", "height", "prepared")), image.vector.tobytes(), 1)
    row = row_of((*(stored[name] for name in COLUMNS), *tail))
    entry = row.entry
    assert (entry.image_id, entry.photo, entry.face, entry.seq, entry.original) == ("g#1", "g", 1, 7, True)
    assert (entry.label, entry.attributes, row.box, row.quality) == (label, attributes, box, quality)
    assert entry.added is not None and round(entry.added.timestamp() * 1e6) == at
    assert row.vector is not None and np.array_equal(row.vector, image.vector)
    assert stored["jpeg"] == image.jpeg


def test_no_vector_is_none() -> None:
    stored = values_of(new_image("p", 1)) | {"seq": 1, "added": 0}
    row = row_of((*(stored[name] for name in COLUMNS), None, 1, 1, "", None, 0))
    assert row.vector is None and row.entry.original is False
    with pytest.raises(ValueError, match="not enough values"):
        row_of(tuple(stored[name] for name in COLUMNS))
