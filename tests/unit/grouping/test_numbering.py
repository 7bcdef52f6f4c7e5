"""Numbers stay with the groups that share most photos: each line of the rule by its smallest case."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.grouping.numbering import Numbered, number_groups


def numbered(codes: str, was: str, next_number: int = 10, given: int | None = None) -> Numbered:
    """codes: a letter a photo, its group. was: a digit a photo, its earlier number, - for none."""
    earlier = np.array([-1 if sign == "-" else int(sign) for sign in was])
    given = len(set(earlier[earlier >= 0].tolist())) if given is None else given
    return number_groups(np.array([ord(code) - ord("a") for code in codes]), earlier, next_number, given)


@pytest.mark.parametrize(
    ("codes", "was", "numbers"),
    [
        ("aabb", "----", [10, 11]),  # nobody had a number
        ("aabbb", "-----", [11, 10]),  # the largest first
        ("aabb", "5533", [5, 3]),  # all as before
        ("aaabb", "55-33", [5, 3]),  # a photo came
        ("aabbb", "77777", [10, 7]),  # fell apart: the larger part keeps it
        ("aabb", "7777", [7, 10]),  # equal parts: the first one
        ("aaaaa", "33555", [5]),  # became one: who brought most
        ("aaaa", "5533", [3]),  # equal shares: the lower number
        ("aaabb", "33555", [3, 5]),  # a photo went over: both keep theirs
        ("aaabbbb", "3335555", [3, 5]),
        ("aaabb", "333--", [3, 10]),
    ],
)
def test_who_bears_which_number(codes: str, was: str, numbers: list[int]) -> None:
    assert numbered(codes, was).numbers.tolist() == numbers


def test_a_number_is_never_given_again() -> None:
    first = numbered("aabb", "----", next_number=1)
    assert (first.numbers.tolist(), first.next_number) == ([1, 2], 3)
    # Both groups are gone; a new one does not take their numbers.
    later = number_groups(np.array([0, 0]), np.array([-1, -1]), first.next_number, given=2)
    assert (later.numbers.tolist(), later.next_number, later.gone) == ([3], 4, 2)


def test_what_happened_is_counted() -> None:
    # a: 3 as it was; b and c: 5 fell apart; d: 6 and 7 became one; e: new; 8 is gone.
    found = numbered("aabbbccddddee", "3355555667" + "7--", given=5)
    assert found.numbers.tolist() == [3, 5, 10, 6, 11]
    assert found.counts == {"kept": 3, "new": 2, "split": 1, "merged": 1, "gone": 2, "next_number": 12}


def test_no_groups() -> None:
    found = number_groups(np.empty(0, int), np.empty(0, int), 4, given=1)
    assert (len(found.numbers), found.next_number, found.gone) == (0, 4, 1)
