"""Identities never straddle the split, whatever the labels, and the same seed draws the same split anywhere."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.data.settings import SplitConfig
from tests.support.splits import Assignment, assign_plainly, assign_splits


def people(*counts: int) -> tuple[list[str], list[str | None], list[str]]:
    """image_ids, labels and content hashes of people with so many photographs each."""
    names: list[tuple[str, str | None]] = [(f"p{p}/{i}.jpg", f"p{p}") for p, n in enumerate(counts) for i in range(n)]
    return [name for name, _ in names], [label for _, label in names], [f"hash of {name}" for name, _ in names]


def by_id(image_ids: list[str], assigned: list[Assignment]) -> dict[str, Assignment]:
    return dict(zip(image_ids, assigned, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_no_identity_is_on_two_sides(seed: int) -> None:
    ids, labels, hashes = people(*(2 + i % 7 for i in range(100)))
    assigned = assign_splits(ids, labels, hashes, SplitConfig(seed=seed))
    sides: dict[str | None, set[str]] = {}
    for label, one in zip(labels, assigned):
        sides.setdefault(label, set()).add({"query": "test", "gallery": "test"}.get(one.split, one.split))
    assert all(len(side) == 1 for side in sides.values())
    assert Counter(side.pop() for side in sides.values()) == {"test": 20, "val": 8, "train": 72}
    queries = [label for label, one in zip(labels, assigned) if one.split == "query"]
    assert len(queries) == len(set(queries)) == 20
    gallery = {label for label, one in zip(labels, assigned) if one.split == "gallery"}
    assert gallery == set(queries)  # each query has something to find


def test_order_of_rows_does_not_matter_and_the_seed_does() -> None:
    ids, labels, hashes = people(*([3] * 40))
    straight = by_id(ids, assign_splits(ids, labels, hashes, SplitConfig()))
    rows = list(range(len(ids)))
    random.Random(1).shuffle(rows)
    shuffled = [ids[r] for r in rows]
    assigned = assign_splits(shuffled, [labels[r] for r in rows], [hashes[r] for r in rows], SplitConfig())
    assert by_id(shuffled, assigned) == straight
    assert by_id(ids, assign_splits(ids, labels, hashes, SplitConfig(seed=1))) != straight


def test_the_split_is_the_same_on_every_machine() -> None:
    """As `printf '0\\0identity\\0p3' | sha256sum` orders them: a change here moves everybody's test set."""
    ids, labels, hashes = people(*([2] * 10))
    assigned = assign_splits(ids, labels, hashes, SplitConfig())
    assert sorted(name for name, one in zip(ids, assigned) if one.split == "query") == ["p3/0.jpg", "p4/0.jpg"]


def test_one_image_identities_are_dropped_with_the_reason() -> None:
    ids, labels, hashes = people(1, 3, 1, 2)
    assigned = by_id(ids, assign_splits(ids, labels, hashes, SplitConfig()))
    dropped = {name: one.reason for name, one in assigned.items() if one.split == "dropped"}
    assert dropped == {"p0/0.jpg": "single-image identity", "p2/0.jpg": "single-image identity"}


def test_duplicates_keep_the_first_by_name() -> None:
    ids, labels, hashes = people(3, 3)
    hashes[0] = hashes[2] = hashes[5] = "same"
    assigned = by_id(ids, assign_splits(ids, labels, hashes, SplitConfig()))
    for name in ("p0/2.jpg", "p1/2.jpg"):
        assert assigned[name] == Assignment(split="dropped", reason="duplicate", duplicate_of="p0/0.jpg")
    assert assigned["p0/0.jpg"].duplicate_of is None


def test_an_identity_of_two_equal_photos_counts_as_one() -> None:
    ids, labels, hashes = people(2, 2)
    hashes[0] = hashes[1] = "same"
    assigned = by_id(ids, assign_splits(ids, labels, hashes, SplitConfig()))
    assert assigned["p0/0.jpg"].reason == "single-image identity"
    assert assigned["p0/1.jpg"].reason == "duplicate"


def test_unlabelled_collections_are_all_gallery() -> None:
    ids, _, hashes = people(3, 3)
    hashes[1] = hashes[0]
    assigned = assign_splits(ids, [None] * 6, hashes, SplitConfig())
    assert Counter(one.split for one in assigned) == {"gallery": 5, "dropped": 1}


def test_unlabelled_photos_among_labelled_ones_are_dropped() -> None:
    ids, labels, hashes = people(3, 3)
    labels[4] = None
    assert assign_splits(ids, labels, hashes, SplitConfig())[4] == Assignment(split="dropped", reason="unlabelled")


@pytest.mark.parametrize(
    ("count", "sides"),
    [(0, {}), (1, {"train": 1}), (2, {"test": 1, "train": 1}), (3, {"test": 1, "val": 1, "train": 1})],
)
def test_few_identities(count: int, sides: dict[str, int]) -> None:
    ids, labels, hashes = people(*([2] * count))
    assigned = assign_splits(ids, labels, hashes, SplitConfig())
    found = {
        label: one.split.replace("query", "test").replace("gallery", "test") for label, one in zip(labels, assigned)
    }
    assert Counter(found.values()) == sides


def test_nothing_for_testing_where_nothing_is_asked_for() -> None:
    ids, labels, hashes = people(*([2] * 10))
    assigned = assign_splits(ids, labels, hashes, SplitConfig(test_fraction=0, val_fraction=0))
    assert {one.split for one in assigned} == {"train"}


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="unique image_ids"):
        assign_splits(["a", "a"], ["x", "x"], ["1", "2"], SplitConfig())


def landmarks() -> tuple[list[str], list[str | None], list[str]]:
    """Four labelled places of three photos, one place seen once, and 100 photos of nothing in particular."""
    ids, labels, hashes = people(3, 3, 3, 3, 1)
    others = [f"other/{i}.jpg" for i in range(100)]
    return ids + others, [*labels, *[None] * 100], hashes + others


def test_singles_may_be_kept_as_distractors_in_the_same_shares() -> None:
    ids, labels, hashes = landmarks()
    config = SplitConfig(test_fraction=0.25, val_fraction=0.0, keep_singles=True)
    assigned = by_id(ids, assign_splits(ids, labels, hashes, config))
    assert "dropped" not in {one.split for one in assigned.values()}
    alone = Counter(one.split for name, one in assigned.items() if name.startswith(("other", "p4")))
    assert set(alone) == {"gallery", "train"} and 15 <= alone["gallery"] <= 35
    plain = by_id(ids, assign_splits(ids, labels, hashes, SplitConfig(test_fraction=0.25, val_fraction=0.0)))
    for name, one in plain.items():  # the labelled are divided as without
        assert one.split == "dropped" or assigned[name] == one
    assert Counter(one.split for one in plain.values()) == {"dropped": 101, "query": 1, "gallery": 2, "train": 9}
    other = SplitConfig(test_fraction=0.25, val_fraction=0.0, keep_singles=True, seed=1)
    assert by_id(ids, assign_splits(ids, labels, hashes, other)) != assigned


def test_a_distractor_s_side_does_not_depend_on_the_other_photos() -> None:
    ids, labels, hashes = landmarks()
    config = SplitConfig(keep_singles=True)
    whole = by_id(ids, assign_splits(ids, labels, hashes, config))
    fewer = by_id(ids[:60], assign_splits(ids[:60], labels[:60], hashes[:60], config))
    assert all(fewer[name] == whole[name] for name in ids[13:60])


def test_kept_singles_of_an_unlabelled_source_all_train_and_copies_are_still_dropped() -> None:
    ids, _, hashes = people(3, 3)
    hashes[4] = hashes[1]
    assigned = assign_splits(ids, [None] * 6, hashes, SplitConfig(keep_singles=True))
    assert [one.split for one in assigned] == ["train"] * 4 + ["dropped", "train"]
    assert assigned[4].duplicate_of == ids[1]


def test_the_source_s_own_queries_and_gallery_are_taken_as_they_are() -> None:
    ids, labels, hashes = people(2, 2, 1, 3)
    given: list[str | None] = ["query", "gallery", "gallery", "gallery", "query", None, "train", "val"]
    hashes[1] = hashes[0]  # the benchmarks cut a query out of a photo of their gallery
    hashes[6] = hashes[3]
    config = SplitConfig(test_fraction=0, val_fraction=0, honour_source=True)
    assigned = assign_splits(ids, labels, hashes, config, given)
    assert [one.split for one in assigned[:5]] == ["query", "gallery", "gallery", "gallery", "query"]
    assert not any(one.reason or one.duplicate_of for one in assigned[:5])
    assert [one.split for one in assigned[5:]] == ["train"] * 3
    without = SplitConfig(test_fraction=0, val_fraction=0)
    assert assign_splits(ids, labels, hashes, without, given) == assign_splits(ids, labels, hashes, without)


def test_the_seed_draws_who_is_tested_who_asks_and_which_distractors_stay() -> None:
    """Each draw apart: a seed that moves one of them only is a seed ignored by the others."""
    ids, labels, hashes = people(*([6] * 40))

    def divided(**settings: Any) -> list[Assignment]:
        return assign_splits(ids, labels, hashes, SplitConfig(**settings))

    tested = [{labels[row] for row, one in enumerate(divided(seed=seed)) if one.split == "query"} for seed in (0, 1)]
    assert len(tested[0]) == len(tested[1]) == 8 and len(tested[0] & tested[1]) < 6
    everyone = [divided(seed=seed, test_fraction=0.99, val_fraction=0) for seed in (0, 1)]
    asked = [{ids[row] for row, one in enumerate(assigned) if one.split == "query"} for assigned in everyone]
    assert len(asked[0]) == len(asked[1]) == 40 and len(asked[0] & asked[1]) < 20
    ids, labels, hashes = landmarks()
    kept = [
        {name for name, one in by_id(ids, divided(seed=seed, keep_singles=True)).items() if one.split == "gallery"}
        for seed in (0, 1)
    ]
    others = [{name for name in names if name.startswith("other/")} for names in kept]
    assert min(map(len, others)) >= 10 and len(others[0] & others[1]) < 15


def test_each_draw_is_the_same_on_every_machine() -> None:
    """Worked out by hand: sha256 of seed, purpose and names, with zero bytes between."""

    def key(*parts: str) -> bytes:
        return hashlib.sha256("\0".join(parts).encode()).digest()

    ids, labels, hashes = people(*([5] * 10))
    config = SplitConfig(seed=3, test_fraction=0.3, val_fraction=0.3)
    assigned = by_id(ids, assign_splits(ids, labels, hashes, config))
    drawn = sorted((f"p{number}" for number in range(10)), key=lambda label: key("3", "identity", label))
    for label in drawn[:3]:
        query = min((f"{label}/{shot}.jpg" for shot in range(5)), key=lambda name: key("3", "query", label, name))
        assert [name for name in ids if assigned[name].split == "query" and name.startswith(f"{label}/")] == [query]
    assert {assigned[f"{label}/0.jpg"].split for label in drawn[3:5]} == {"val"}  # 0.3 of the other 7
    assert {assigned[f"{label}/0.jpg"].split for label in drawn[5:]} == {"train"}
    ids, labels, hashes = landmarks()
    for share in (0.2, 0.6):
        config = SplitConfig(keep_singles=True, test_fraction=share)
        assigned = by_id(ids, assign_splits(ids, labels, hashes, config))
        for name in ids[13:]:
            part = int.from_bytes(key("0", "distractor", name)[:7], "big") / 256**7
            assert assigned[name].split == ("train" if part >= share else "gallery")


def test_where_all_are_tested_nobody_trains_and_nobody_is_left_out() -> None:
    config = SplitConfig(test_fraction=1.0, keep_singles=True)
    ids, labels, hashes = landmarks()
    assigned = by_id(ids, assign_splits(ids, labels, hashes, config))
    assert Counter(one.split for one in assigned.values()) == {"query": 4, "gallery": len(ids) - 4}
    alone = by_id(ids, assign_splits(ids, [None] * len(ids), hashes, config))
    assert {one.split for one in alone.values()} == {"gallery"}


def test_a_share_is_rounded_and_at_least_one_where_one_was_asked_for() -> None:
    def sides(count: int, **fractions: Any) -> dict[str, int]:
        ids, labels, hashes = people(*([2] * count))
        assigned = assign_splits(ids, labels, hashes, SplitConfig(**fractions))
        return Counter({"query": "test", "gallery": "test"}.get(one.split, one.split) for one in assigned[::2])

    assert sides(10, test_fraction=0.26, val_fraction=0.3) == {"test": 3, "val": 2, "train": 5}
    assert sides(10, test_fraction=0.01, val_fraction=0.01) == {"test": 1, "val": 1, "train": 8}
    assert sides(10, test_fraction=0.0, val_fraction=0.01) == {"val": 1, "train": 9}
    assert sides(10, test_fraction=0.5, val_fraction=0.0) == {"test": 5, "train": 5}


def test_a_copy_is_told_from_the_first_by_name_whatever_the_order_and_whoever_it_is_said_to_be() -> None:
    ids = ["b/1.jpg", "a/9.jpg", "a/1.jpg", "b/2.jpg", "a/2.jpg"]
    labels: list[str | None] = ["b", "a", "a", "b", "a"]
    hashes = ["same", "9", "same", "2", "3"]
    assigned = by_id(ids, assign_splits(ids, labels, hashes, SplitConfig(test_fraction=0, val_fraction=0)))
    assert assigned["b/1.jpg"] == Assignment(split="dropped", reason="duplicate", duplicate_of="a/1.jpg")
    assert assigned["b/2.jpg"] == Assignment(split="dropped", reason="single-image identity")  # its other is a copy
    assert assigned["a/1.jpg"].split == "train"


def test_a_photo_that_the_source_keeps_for_itself_is_nobody_s_original() -> None:
    """A benchmark's gallery photo and its copy in the training set: the copy trains, it is not dropped as one."""
    ids, labels, hashes = people(3, 3)
    given: list[str | None] = ["gallery", *[None] * 5]
    hashes[1] = hashes[0]
    config = SplitConfig(test_fraction=0, val_fraction=0, honour_source=True)
    assigned = assign_splits(ids, labels, hashes, config, given)
    assert [one.split for one in assigned] == ["gallery"] + ["train"] * 5


@settings(max_examples=40, deadline=None)
@given(
    photos=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", "d", "é", "\U0001d4b3", None]),  # who
            st.integers(0, 12),  # what it shows
            st.sampled_from([None, "query", "gallery", "train"]),
        ),
        max_size=40,
    ),
    config=st.builds(
        SplitConfig,
        test_fraction=st.sampled_from([0.0, 0.2, 1 / 3, 1.0]),
        val_fraction=st.sampled_from([0.0, 0.1, 0.5]),
        keep_singles=st.booleans(),
        honour_source=st.booleans(),
        seed=st.integers(0, 3),
    ),
)
def test_tables_say_what_a_plain_loop_says(
    photos: list[tuple[str | None, int, str | None]], config: SplitConfig
) -> None:
    ids = [f"{who}\ufb00/{place * 7919 % 40}" for place, (who, _, _) in enumerate(photos)]
    labels, hashes, sides = ([photo[column] for photo in photos] for column in range(3))
    columns: Any = (ids, labels, [str(one) for one in hashes], config, sides)
    assert assign_splits(*columns) == assign_plainly(*columns)


def test_many_distractors_are_drawn_as_a_plain_loop_draws_them() -> None:
    """Some fall close to the border, where a rounded number would be on the other side."""
    num = 3000
    ids, labels = [f"{number}.jpg" for number in range(num)], [str(number // 3 % 600) for number in range(num)]
    some: list[str | None] = [label if number % 2 else None for number, label in enumerate(labels)]
    config = SplitConfig(keep_singles=True, test_fraction=0.37, seed=5)
    assert assign_splits(ids, some, ids, config) == assign_plainly(ids, some, ids, config)
