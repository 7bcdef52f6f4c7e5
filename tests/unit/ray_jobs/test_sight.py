"""Workers look for the job's folders: their machine may have come after the nodes were asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_jobs.runtime.parallel import sight


def test_every_worker_looks_for_the_paths_of_a_session(tmp_path: Path) -> None:
    source, out = tmp_path / "photos", tmp_path / "new" / "out"
    source.mkdir()
    assert sight.of_session() == ()
    with sight.looked_for(out, [source, tmp_path / "none", "s3://bucket/photos"]):
        seen = sight.of_session()
        assert seen == tuple(sorted((str(out), str(source)))) and out.is_dir()
        sight.must_be_here(seen)
        with sight.looked_for("s3://bucket/w"):
            assert sight.of_session() == ()
        assert sight.of_session() == seen
    assert sight.of_session() == ()
    out.rmdir()
    with pytest.raises(ValueError, match=f"does not see what is at {out}: a path of one machine is no place"):
        sight.must_be_here(seen)
