"""Groups too large to be mapped at once, split where their links are weakest, into parts that share photos.

A street, or a landmark that stands behind others, chains places into one group without end, and mapping takes more than
in proportion to a group's photos. So photos are joined by their strongest links first, as long as what comes of it is
small enough (Kruskal's order, with a limit); then each part takes in the photos of others that it is linked to most.
By those its models are joined with theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_GROUP = 300
"""Photos that are mapped together, at most."""

_OWN = 0.7  # of the limit are a part's own photos at first
_SMALL, _FULL = 0.15, 0.85  # then parts of so much of it go to others, up to so much; the rest is for those of others


def split(num: int, a: np.ndarray, b: np.ndarray, inliers: np.ndarray, limit: int) -> np.ndarray:
    """(num,) int64: the part of each photo of a group, numbered from 0 in order of their first photos.

    Args: a, b: (L,) int, the links, as numbers of photos below `num`. inliers: (L,) int. limit: photos of a part.
    """
    if num <= limit:
        return np.zeros(num, np.int64)
    leader, size = list(range(num)), [1] * num

    def find(photo: int) -> int:
        while leader[photo] != photo:
            leader[photo] = leader[leader[photo]]
            photo = leader[photo]
        return photo

    order = np.lexsort((b, a, -inliers))
    links = list(zip(a[order].tolist(), b[order].tolist(), strict=True))
    for most, small in ((_OWN * limit, num), (_FULL * limit, _SMALL * limit)):
        for one, two in links:
            one, two = sorted((find(one), find(two)))
            if one != two and size[one] + size[two] <= most and min(size[one], size[two]) <= small:
                leader[two] = one  # the smallest number leads
                size[one] += size[two]
    return np.unique([find(photo) for photo in range(num)], return_inverse=True)[1]


def borrowed(part: np.ndarray, a: np.ndarray, b: np.ndarray, inliers: np.ndarray, limit: int) -> np.ndarray:
    """(m, 2) int64: a part, and a photo of another that it takes in: those that its own have most matches with.

    Args: part: as `split` gave it. The others as there.
    """
    own = np.bincount(part)
    across = part[a] != part[b]
    a, b, inliers = a[across], b[across], inliers[across]
    to, photo = np.concatenate([part[a], part[b]]), np.concatenate([b, a])
    pairs, at = np.unique(np.stack([to, photo], axis=1), axis=0, return_inverse=True)
    matches = np.bincount(at.ravel(), np.concatenate([inliers, inliers]), minlength=len(pairs))
    order = np.lexsort((pairs[:, 1], -matches, pairs[:, 0]))
    pairs = pairs[order]
    rank = np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0])
    room = np.minimum(limit - own, max(3, int((1 - _OWN) * limit)))
    return pairs[rank < room[pairs[:, 0]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups:
    """What is mapped together. own: (N,) int32, the group of each photo, -1: none. whole: (N,) int32, the first of the
    groups that its own was split into, -1: none. members: (m, 2) int64 group and photo, those of others included."""

    own: np.ndarray
    whole: np.ndarray
    members: np.ndarray


def group_all(joined: np.ndarray, a: np.ndarray, b: np.ndarray, inliers: np.ndarray, least: int, limit: int) -> Groups:
    """Groups of `least` photos or more, in order of their first photos, those of more than `limit` split.

    Args: joined: (N,) int64, the first of the photos that each is linked with, directly or through others, by the links
        (a, b), which are rows of it.
    """
    names, at, sizes = np.unique(joined, return_inverse=True, return_counts=True)
    own, whole = np.full((2, len(joined)), -1, np.int32)
    members, number = [np.empty((0, 2), np.int64)], 0
    by_name, by_link = np.argsort(at, kind="stable"), np.argsort(at[a], kind="stable")
    photos = np.split(by_name, np.cumsum(sizes)[:-1])
    ends = np.searchsorted(at[a][by_link], np.arange(len(names) + 1))
    for name in np.flatnonzero(sizes >= least):
        mine, links = photos[name], by_link[ends[name] : ends[name + 1]]
        inside = (np.searchsorted(mine, a[links]), np.searchsorted(mine, b[links]), inliers[links])
        part = split(len(mine), *inside, limit)
        own[mine], whole[mine] = number + part, number
        members.append(np.column_stack([number + part, mine]))
        if part.any():
            guests = borrowed(part, *inside, limit)
            members.append(np.column_stack([number + guests[:, 0], mine[guests[:, 1]]]))
        number += int(part.max()) + 1
    return Groups(own=own, whole=whole, members=np.concatenate(members))
