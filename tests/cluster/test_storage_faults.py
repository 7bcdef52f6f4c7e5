"""A job in an object store that fails in all ways ends as in one that does not, and rejects no photo for it.

A sample: `make faults` does the same to both pipelines, for longer.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ray_jobs import ingest
from ray_jobs.ingest import IngestConfig
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST, read_manifest
from retrieval.artifacts.storage.failures import Outage
from retrieval.artifacts.storage.patience import VARIABLE
from retrieval.data.demo.faces import draw_collection
from retrieval.images.settings import PrepareConfig
from tests.support.faulty_proxy import FaultyProxy
from tests.support.object_store import ObjectStore


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("drawn")
    draw_collection(folder, num_identities=4, images_per_identity=3, size=(120, 147))
    return [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))] + [b"no photo at all"]


def test_a_collection_made_of_photos_in_a_failing_store_is_the_same(
    s3: ObjectStore, drawn: list[bytes], ray_local: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    photos, out = (Folder.of(f"{s3.bucket()}/{name}{s3.options}") for name in ("photos", "collections"))
    for number, photo in enumerate(drawn):
        photos.write_bytes(f"{number}.jpg", photo)
    prepare = PrepareConfig(crop="fit", size=64)
    cfg = IngestConfig(source=photos.uri, out=(out / "plain").uri, prepare=prepare, part_size=5)
    plain = read_manifest(ingest.main(cfg))
    assert plain.counts["stored"] == 12 and plain.counts["rejected_by_reason"] == {"not-an-image": 1}
    monkeypatch.setenv(VARIABLE, "60")
    with FaultyProxy(s3.place, seed=11) as proxy:

        def through(folder: Folder) -> str:
            return f"{folder.uri.partition('?')[0]}?endpoint_override={proxy.address}&scheme=http"

        far = replace(cfg, source=through(photos))
        proxy.injected.share, proxy.injected.delay_s = 0.15, 0.2
        proxy.after(30, lambda: proxy.silence(3.0))
        made = read_manifest(ingest.main(replace(far, out=through(out / "failing"))))
        assert made.fingerprint == plain.fingerprint and made.counts == plain.counts
        assert proxy.injected.seen["silent"] and sum(proxy.injected.seen[fault] for fault in proxy.injected.faults) >= 5

        proxy.injected.share, halfway = 0.0, through(out / "expired")
        proxy.after(40, proxy.expire)
        with pytest.raises(Outage, match="does not accept the credentials.*renewed"):
            ingest.main(replace(far, out=halfway))
        proxy.injected.expired = False
        assert not (out / "expired").exists(MANIFEST)
        again = read_manifest(ingest.main(replace(far, out=halfway)))
        assert again.fingerprint == plain.fingerprint and again.counts == plain.counts
