"""Which version answers now."""

from __future__ import annotations

from pathlib import Path

from retrieval.artifacts.published import Pair
from serve.engine.version import Version
from serve.engine.versions import Versions
from tests.support.inside import settings
from tests.support.workspace import make_workspace


def test_the_first_answers(tmp_path: Path) -> None:
    made = make_workspace(tmp_path, num_identities=2)
    version = Version.load(settings(made), Pair.open(str(made.folder)))
    versions = Versions(version)
    assert versions.current is version
    versions.close()
