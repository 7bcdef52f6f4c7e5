"""ALIKED as an extractor: what it gives, and which files of weights it takes."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch

from retrieval.data.demo.places import building, photograph
from retrieval.geometry.extractors.aliked import Aliked, digest_of, packed
from retrieval.geometry.extractors.aliked_network import AlikedN16
from retrieval.geometry.features import Features, extract
from retrieval.geometry.matching.matches import match
from retrieval.geometry.matching.two_views import verify
from retrieval.images.pixels import encode_jpeg
from tests.conftest import REAL_DATA
from tests.support.local import random_aliked
from tests.support.places import SMALL

PHOTO = photograph(building(7, 0), SMALL, 0, 2)


@pytest.fixture(scope="module")
def extractor() -> Aliked:
    return Aliked(random_aliked())


def test_points_are_where_colmap_has_them_with_descriptors_of_half_precision(extractor: Aliked) -> None:
    keypoints, descriptors = extractor(PHOTO, 50)
    assert keypoints.dtype == np.float32 and descriptors.dtype == np.float16
    assert keypoints.shape == (len(keypoints), 4) and descriptors.shape == (len(keypoints), 128)
    assert 20 < len(keypoints) <= 50 and (keypoints[:, 2:] == [1, 0]).all()
    net = AlikedN16().eval()
    net.load_state_dict(safetensors.torch.load(random_aliked()))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        points, exact, _ = net(torch.from_numpy(PHOTO).permute(2, 0, 1) / 255, 50)
    assert np.abs(keypoints[:, :2] - 0.5 - points.numpy()).max() < 1e-3, "its pixels begin at a corner"
    assert np.abs(descriptors.astype(float) - exact.numpy()).max() < 1e-3


def test_a_photo_gives_the_same_numbers_each_time_on_one_thread_or_two(extractor: Aliked) -> None:
    first, before = extractor(PHOTO, 200), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            again = Aliked(random_aliked())(PHOTO, 200)
            assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True)), threads
    finally:
        torch.set_num_threads(before)


def test_features_of_a_photo_match_its_own_and_no_sift(extractor: Aliked) -> None:
    jpeg = encode_jpeg(PHOTO)
    found = extract(jpeg, max_features=100, extractor=extractor)
    assert isinstance(found, Features) and found.max_ratio == 0.9
    rows = match(found, found)
    assert len(rows) > 20 and (rows[:, 0] == rows[:, 1]).all()
    sift = extract(jpeg, max_features=100)
    assert sift.max_ratio == 0.8
    with pytest.raises(ValueError, match="features of two kinds"):
        verify(found, sift)
    small = extract(jpeg, max_features=100, max_side=200, extractor=extractor)
    assert (small.width, small.height) == (found.width, found.height)
    assert small.keypoints[:, 0].max() > 200


def test_weights_are_the_same_bytes_for_the_same_numbers() -> None:
    state = safetensors.torch.load(random_aliked())
    assert packed(dict(reversed(state.items())), "w") == random_aliked()
    assert digest_of(random_aliked()) != digest_of(random_aliked(seed=1)) and len(digest_of(b"")) == 64
    half = packed({name: tensor.half() for name, tensor in state.items()}, "half")
    assert safetensors.torch.load(half)["conv1.weight"].dtype == torch.float32


def test_weights_of_something_else_are_refused() -> None:
    state = safetensors.torch.load(random_aliked())
    for odd, said in (
        (state | {"block5.conv1.weight": torch.zeros(1)}, "block5.conv1.weight"),
        ({name: tensor for name, tensor in state.items() if name != "conv3.weight"}, "conv3.weight"),
        (state | {"conv3.weight": torch.zeros(2)}, "conv3.weight"),
    ):
        with pytest.raises(ValueError, match=f"'w.pth' does not hold ALIKED-n16: {said} is missing.* and 0 more"):
            packed(odd, "w.pth")


@pytest.mark.realdata
def test_the_published_weights_find_the_same_place_in_two_real_photos() -> None:
    path = REAL_DATA / "weights/aliked-n16.pth"
    extractor = Aliked(packed(torch.load(path, weights_only=True), str(path)))
    names = ("sfm/sceaux_castle", "sfm/kermit")
    photos = {name: sorted((REAL_DATA / "landmarks" / name).glob("*.[jJ]*"))[:2] for name in names}
    one, two, other = (
        extract(path.read_bytes(), max_features=512, max_side=320, extractor=extractor)
        for path in (*photos[names[0]], photos[names[1]][0])
    )
    assert len(one.keypoints) == 512
    assert verify(one, two).num_inliers > 60 > 15 > verify(one, other).num_inliers
