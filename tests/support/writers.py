"""Clients of a store in processes of their own. Light to import: many are started, and killed."""

from __future__ import annotations

import hashlib
import random
import sys
import time

import numpy as np

from retrieval.live.rows import NewImage
from retrieval.live.store import Store

MODEL, DIM = "m" * 64, 32


def drawn(image_id: str, seed: int) -> NewImage:
    """An image of noise, the same each time."""
    rng = np.random.default_rng(seed)
    jpeg, vector = rng.bytes(2000), rng.normal(size=DIM).astype(np.float32)
    name = hashlib.sha256(jpeg).hexdigest()
    return NewImage(image_id=image_id, photo=image_id, jpeg=jpeg, width=9, height=9, content_hash=name, vector=vector)


def add_some(folder: str, who: int, num: int) -> None:
    """`num` images under names of its own."""
    store = Store.open(folder)
    for number in range(num):
        store.add([drawn(f"{who}-{number}", 100 * who + number)], MODEL)


def change_for_ever(folder: str, who: int, seed: int) -> None:
    """Adds, replaces and deletes names of its own. On stdout, a line before each change and one when it is
    acknowledged: `try add NAME SEED`, `done add NAME SEED`."""
    store, rng = Store.open(folder), random.Random(seed)
    while True:
        name, kind = f"{who}-{rng.randrange(6)}", rng.choice(["add", "add", "delete"])
        drawing = rng.randrange(1_000_000)
        _say(f"try {kind} {name} {drawing}")
        while True:
            try:
                if kind == "add":
                    store.add([drawn(name, drawing)], MODEL, replace=True)
                else:
                    store.delete([name], {})
                break
            except OSError:  # refused, or nobody knows: as a client does, the same again
                continue
        _say(f"done {kind} {name} {drawing}")


def compact_for_ever(folder: str) -> None:
    """Makes the tables the base of the log, over and over."""
    store = Store.open(folder)
    while True:
        store.compact_log()
        time.sleep(0.5)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[2] == "compact":
        compact_for_ever(sys.argv[1])
    change_for_ever(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
