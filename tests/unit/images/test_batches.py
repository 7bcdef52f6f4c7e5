"""What goes through a network together, and what is made ready while it does."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from retrieval.images.batches import Decoders, by_shape, images_at_once, prefetch


def test_a_cpu_takes_as_many_images_at_once_as_its_cache_holds_and_a_gpu_as_many_as_asked() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert images_at_once(64, 224 * 224, cpu, rounded=False) == 4
    assert images_at_once(64, 160 * 160, cpu, rounded=True) == 15
    assert images_at_once(3, 160 * 160, cpu, rounded=True) == 3
    assert images_at_once(0, 4000 * 3000, cpu, rounded=False) == images_at_once(0, 4000 * 3000, gpu, rounded=False) == 1
    assert images_at_once(64, 224 * 224, gpu, rounded=False) == 64


def test_a_batch_is_of_one_shape_and_holds_as_many_as_may_go_together() -> None:
    shapes = np.array([(3, 2), (2, 3), (3, 2), (2, 2), (3, 2), (2, 3), (3, 2)])
    asked: list[int] = []

    def at_once(pixels: int) -> int:
        asked.append(pixels)
        return 13 // pixels

    batches = by_shape(shapes, at_once)
    assert [rows.tolist() for rows in batches] == [[3], [1, 5], [0, 2], [4, 6]]
    assert asked == [4, 6, 6] and all(type(pixels) is int for pixels in asked)


def test_an_image_that_is_too_large_for_a_batch_goes_alone() -> None:
    batches = by_shape(np.array([(90, 90), (90, 90), (1, 1)]), lambda pixels: 100 // pixels)
    assert [rows.tolist() for rows in batches] == [[2], [0], [1]]
    assert by_shape(np.empty((0, 2), np.int64), lambda pixels: 1) == []


@pytest.mark.parametrize("seed", range(3))
def test_each_row_is_in_one_batch_with_others_of_its_shape(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = rng.integers(1, 4, size=(50, 2))
    batches = by_shape(shapes, lambda pixels: 5)
    assert sorted(np.concatenate(batches).tolist()) == list(range(50))
    assert all(len(rows) <= 5 and len(np.unique(shapes[rows], axis=0)) == 1 for rows in batches)
    kinds = len(np.unique(shapes, axis=0))
    assert sum(len(rows) < 5 for rows in batches) <= kinds  # only a shape's last batch is not full


def test_items_come_in_their_order_each_with_what_was_made_of_it() -> None:
    with ThreadPoolExecutor(1) as executor:
        assert list(prefetch(executor, lambda n: n * n, iter([3, 1, 2]))) == [(3, 9), (1, 1), (2, 4)]
        assert list(prefetch(executor, str, [7])) == [(7, "7")]
        assert list(prefetch(executor, str, [])) == []


def test_the_next_item_is_made_while_one_is_used_and_no_more_than_it() -> None:
    made, second = [], threading.Event()

    def make(item: int) -> int:
        made.append(item)
        if item == 1:
            second.set()
        return item

    with ThreadPoolExecutor(1) as executor:
        items = prefetch(executor, make, range(5))
        assert next(items) == (0, 0)
        assert second.wait(5), "the second was not begun while the first is used"
        executor.submit(int).result()  # whatever else was asked for has been done by now
        assert made == [0, 1]
        assert list(items) == [(number, number) for number in range(1, 5)]


def test_what_goes_wrong_in_the_background_is_raised_where_its_turn_is() -> None:
    with ThreadPoolExecutor(1) as executor:
        items = prefetch(executor, lambda n: 1 // n, [1, 0, 2])
        assert next(items) == (1, 1)
        with pytest.raises(ZeroDivisionError):
            next(items)


@pytest.mark.parametrize("num", [1, 7, 8, 9, 40])
def test_a_gpu_s_photos_are_decoded_by_many_threads_and_stay_in_order(num: int) -> None:
    seen: set[str] = set()
    both = threading.Barrier(2)

    def decode(jpeg: bytes) -> np.ndarray:
        if num == 40 and jpeg in (b"\1", b"\x21"):  # of the first and the last few: neither waits for the other
            both.wait(timeout=60)
        seen.add(threading.current_thread().name)
        return np.full((2, 3), jpeg[0], np.uint8)

    jpegs = [bytes([number]) for number in range(num)]
    found = Decoders("cuda:0").stack(jpegs, decode)
    assert found.shape == (num, 2, 3)
    assert found[:, 0, 0].tolist() == list(range(num))
    if num < 40:
        np.testing.assert_array_equal(Decoders("cpu").stack(jpegs, decode), found)
    else:
        assert len(seen) > 1
