"""What tests of evaluation share: eight photos of three people."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from tests.support.measured import write_collection


@pytest.fixture
def collection(tmp_path: Path) -> Folder:
    return write_collection(Folder.of(tmp_path / "collection"))
