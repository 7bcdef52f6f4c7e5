"""Numbers of groups that stay when photos are added, taken away, or groups found a little differently.

Where the earlier groups are kept (settings.py), they only grow, or become one by what was added. The rule in any case:
a group takes the number of the earlier group that it shares most photos with; each number goes to one group,
the largest share first. So

- a group that gained or lost photos keeps its number;
- of a group that fell apart, the part with most of its photos keeps the number, the others get new ones;
- of groups that became one, the number of the one that brought most photos stays; the others' numbers are retired;
- who had no number, a single photo among them, gets a new one. Numbers are never given a second time.

Equal shares: the lower number, then the group whose first photo, by image_id, comes first. New numbers go on from the
highest ever given, the largest group first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbered:
    """numbers: (G,) int64, of each group. next_number: the first that was never given, here or before.

    kept, new, split, merged, gone: groups with an earlier number; groups with a new one; earlier groups whose photos
    are now in two groups or more; groups with photos of two earlier groups or more; numbers that nobody bears any more.
    """

    numbers: np.ndarray
    next_number: int
    kept: int
    new: int
    split: int
    merged: int
    gone: int

    @property
    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("kept", "new", "split", "merged", "gone", "next_number")}


def number_groups(codes: np.ndarray, was: np.ndarray, next_number: int = 1, given: int = 0) -> Numbered:
    """Give each group its number.

    Args:
        codes: (n,) int, the group of each grouped photo, 0 to G - 1 in order of each group's first photo.
        was: (n,) int, the earlier number of each of these photos, -1 for none.
        next_number: the first number that was never given.
        given: how many numbers the earlier groups bore.

    Example: photos of group 7 fell into two groups, of which the second is larger.
        >>> number_groups(np.array([0, 0, 1, 1, 1]), np.array([7, 7, 7, 7, 7]), next_number=9, given=1).numbers.tolist()
        [9, 7]
    """
    shared = Counter(zip(was[was >= 0].tolist(), codes[was >= 0].tolist(), strict=True))
    numbers = np.full(int(codes.max(initial=-1)) + 1, -1, dtype=np.int64)
    taken = set[int]()
    for (number, code), _ in sorted(shared.items(), key=lambda item: (-item[1], item[0])):
        if numbers[code] < 0 and number not in taken:
            numbers[code] = number
            taken.add(number)
    fresh = np.flatnonzero(numbers < 0)
    sizes = np.bincount(codes, minlength=len(numbers))
    numbers[fresh[np.argsort(-sizes[fresh], kind="stable")]] = np.arange(next_number, next_number + len(fresh))
    return Numbered(
        numbers=numbers,
        next_number=next_number + len(fresh),
        kept=len(taken),
        new=len(fresh),
        split=sum(times > 1 for times in Counter(number for number, _ in shared).values()),
        merged=sum(times > 1 for times in Counter(code for _, code in shared).values()),
        gone=given - len(taken),
    )
