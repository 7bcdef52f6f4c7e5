"""Done-markers: a small file beside a step's file that says it is whole, how long it is, and its hash.

A marker is written after its file was published, and taken away before that file is written again. So where there is a
marker, its file is whole, and whoever resumes reads some 200 bytes instead of the file. The seal of a folder holds the
hashes of all its files: markers go when it is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from retrieval.artifacts.writing.seam import TEMP

MARKS = ".done"
"""The folder of markers, in the folder whose files they speak of."""

OWNERS = ".owner"
"""Where a writer says that it is at work, in the folder it writes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A file that was published. name: in its folder. sha256: hex. about: what its maker counted, as JSON has it."""

    name: str
    num_bytes: int
    sha256: str
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The content of its marker."""
        return (json.dumps(asdict(self), sort_keys=True) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Done:
        """Raises: ValueError, KeyError or TypeError if it is no marker's content."""
        return cls(**json.loads(content))


def marker(name: str) -> str:
    """Name of the marker of the file `name`, in the same folder."""
    return f"{MARKS}/{name}.json"


def is_content(name: str) -> bool:
    """Whether a file of a folder is what was made there: no marker, no sign of a writer, no half of a file."""
    return TEMP not in name and not {MARKS, OWNERS} & set(name.split("/"))
