"""The job that folds changes into a sealed gallery, on a cluster that is none: published, people go on, erased."""

from __future__ import annotations

import base64
import dataclasses
import fcntl
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from ray_jobs import build_index, compact, describe, group
from ray_jobs.compact import CompactConfig
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.published import Pair, history, publish
from retrieval.geometry import extraction
from retrieval.geometry.settings import FeatureConfig
from retrieval.grouping.settings import GroupingConfig
from retrieval.live.filters import Filter
from retrieval.live.folding.erasure import erase
from retrieval.live.folding.holders import sealed_folders
from retrieval.live.store import Store
from retrieval.live.view import GalleryView
from tests.support.folding import bytes_below
from tests.support.gallery import Sealed, new_image, sealed_gallery
from tests.support.inline import Cluster, install
from tests.support.local import random_aliked
from tests.support.object_store import ObjectStore


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return install(monkeypatch, compact, build_index, describe, group)


@pytest.fixture
def made(tmp_path: Path, cluster: Cluster) -> Sealed:
    """With the people that the job finds."""
    made = sealed_gallery(tmp_path, people=False)
    workspace, pair = made.workspace, made.pair
    people = workspace / "people/made"
    group.main(
        group.GroupConfig(
            index=pair.index.uri,
            embeddings=(workspace / "embeddings/made").uri,
            collection=pair.collection.uri,
            out=people.uri,
            group=GroupingConfig(threshold=0.5),
        )
    )
    publish(workspace, collection=pair.collection, model=pair.model, index=pair.index, people=people)
    cluster.parts.clear()
    return dataclasses.replace(made, pair=Pair.open(workspace.uri))


def compacted(made: Sealed) -> Pair:
    folders = compact.main(CompactConfig(workspace=made.workspace.uri, wait_s=0))
    pair = Pair.open(made.workspace.uri)
    assert folders["collection"] == pair.collection and folders["index"] == pair.index
    return pair


def middle(data: bytes) -> bytes:
    return data[len(data) // 2 : len(data) // 2 + 60]


def test_changes_become_a_published_gallery_and_nothing_erased_is_left(made: Sealed, cluster: Cluster) -> None:
    store, model = Store.open(made.workspace), made.pair.model_fingerprint
    old = GalleryView(made.pair, store)
    twin_of, other = "a/ada-000.jpg", "a/dan-003.jpg"
    person = old.entry(other).person
    assert person is not None
    # One like a person who is there, and one like nobody.
    alike = dataclasses.replace(new_image("new/alike.jpg", 1, label="dan"), vector=old.vector(other))
    store.add([alike], model)
    store.add([new_image("new/alone.jpg", 2)], model)
    numbers = {one.image_id: one.person for one in old.entries(None, 100)[0]}
    receipt = erase(old, [twin_of])
    pair = compacted(made)
    assert [call["name"] for call in cluster.parts] == ["fold", "build_index", "link", "thumbnails", "compare"]
    view = GalleryView(pair, store)
    assert len(view) == 41 and view.entry("new/alike.jpg").where == "sealed" == view.entry("new/alone.jpg").where
    assert view.entry("new/alike.jpg").person == person and view.entry("new/alone.jpg").person is None
    now = {one.image_id: one.person for one in view.entries(None, 100)[0]}
    kept = [name for name, number in numbers.items() if number is not None and name in now]
    assert len(kept) > 20 and all(now[name] == numbers[name] for name in kept)
    assert view.num_allowed(Filter(added_after=view.entry("new/alike.jpg").added)) == 2
    left = bytes_below(made.workspace)
    assert middle(made.crops[twin_of]) not in left and made.vectors[twin_of].tobytes() not in left
    assert middle(made.crops[other]) in left
    for one in receipt["pending"]:
        assert not (made.workspace / one["what"]).list()
    before = {kind: set(sealed_folders(made.workspace, kind)) for kind in ("collection", "index", "people")}
    assert compacted(made) == pair  # again: there is nothing to do
    assert before == {kind: set(sealed_folders(made.workspace, kind)) for kind in before}


def test_without_deletions_the_old_gallery_stays_and_can_be_gone_back_to(made: Sealed) -> None:
    store = Store.open(made.workspace)
    store.add([new_image("new.jpg", 2)], made.pair.model_fingerprint)
    pair = compacted(made)
    assert len(history(made.workspace)[1]) >= 2
    old = GalleryView(made.pair, store)
    assert old.entry("new.jpg").where == "live" and len(old) == len(GalleryView(pair, store)) == 41


def test_what_every_version_holds_may_leave_the_store(made: Sealed) -> None:
    store = Store.open(made.workspace)
    image = new_image("new.jpg", 2)
    store.add([image], made.pair.model_fingerprint, original=b"as sent")
    forget = CompactConfig(workspace=made.workspace.uri, wait_s=0, forget=True)
    compact.main(forget)
    view = GalleryView(Pair.open(made.workspace.uri), store)
    assert view.entry("new.jpg").original and view.original("new.jpg") == b"as sent"
    assert store.jpeg("new.jpg") == image.jpeg, "the version before can still be gone back to"
    store.delete(["a/ada-000.jpg"], {})
    compact.main(forget)  # no version before holds no erased photo: all are gone
    view = GalleryView(Pair.open(made.workspace.uri), store)
    assert store.jpeg("new.jpg") is None and view.jpeg("new.jpg") == image.jpeg
    assert view.entry("new.jpg").where == "sealed" and not view.entry("new.jpg").original
    assert [name for name, _ in store.changed(0, made.pair.model_fingerprint).deleted] == ["a/ada-000.jpg"]


def test_a_photo_that_was_replaced_leaves_with_its_folders(made: Sealed) -> None:
    store = Store.open(made.workspace)
    store.add([new_image("a/ada-000.jpg", 2)], made.pair.model_fingerprint)
    pair = compacted(made)
    left = bytes_below(made.workspace)
    assert middle(made.crops["a/ada-000.jpg"]) not in left
    assert GalleryView(pair, store).jpeg("a/ada-000.jpg") == new_image("a/ada-000.jpg", 2).jpeg


def test_killed_at_any_step_it_goes_on(made: Sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(made.workspace)
    store.add([new_image("new.jpg", 2)], made.pair.model_fingerprint)
    store.delete(["a/dan-003.jpg"], {})
    expected = None
    for step in ("_parts", "_index", "_people", "_clean"):
        with monkeypatch.context() as patch:
            inside = getattr(compact, step)

            def killed(*args: object, inside=inside, step=step) -> None:
                if step != "_clean":
                    inside(*args)
                raise KeyboardInterrupt

            patch.setattr(compact, step, killed)
            with pytest.raises(KeyboardInterrupt):
                compact.main(CompactConfig(workspace=made.workspace.uri, wait_s=0))
        published = Pair.open(made.workspace.uri)
        assert (published.version == made.pair.version) == (step != "_clean")
        view = GalleryView(published, store)
        assert len(view) == 40 and view.entry("new.jpg").where == ("live" if step != "_clean" else "sealed")
        expected = expected or read_manifest(published.collection).fingerprint
    pair = compacted(made)
    assert len(GalleryView(pair, store)) == 40
    assert middle(made.crops["a/dan-003.jpg"]) not in bytes_below(made.workspace)


def test_one_at_a_time_and_only_over_what_it_began_with(made: Sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(made.workspace)
    store.add([new_image("new.jpg", 2)], made.pair.model_fingerprint)
    with Path(made.workspace.file("live/compact.lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="Another compact runs"):
            compacted(made)
    people = compact._people

    def publishes_meanwhile(*args: object) -> object:
        made_people = people(*args)  # type: ignore[arg-type]
        index = made.workspace / "index/other"
        build_index.main(
            build_index.BuildIndexConfig(
                embeddings=(made.workspace / "embeddings/made").uri,
                collection=made.pair.collection.uri,
                out=index.uri,
                splits=("gallery",),
            )
        )
        publish(made.workspace, collection=made.pair.collection, model=made.pair.model, index=index)
        return made_people

    monkeypatch.setattr(compact, "_people", publishes_meanwhile)
    with pytest.raises(ValueError, match="Another gallery was published"):
        compacted(made)


@pytest.fixture
def shared(made: Sealed, s3: ObjectStore) -> Folder:
    """The workspace in an object store."""
    bucket = Folder(s3.bucket()) / "w"
    local = pafs.LocalFileSystem()
    pafs.copy_files(made.workspace.path, bucket.path, source_filesystem=local, destination_filesystem=bucket.fs)
    return bucket


def test_in_an_object_store_no_object_holds_what_was_erased(
    made: Sealed, shared: Folder, s3: ObjectStore, tmp_path: Path
) -> None:
    pair, sealed_too, added_too = Pair.open(shared.uri), "a/dan-003.jpg", new_image("gone.jpg", 1)
    store, other = Store.open(shared), Store.open(shared, tmp_path / "other host")
    for image in (added_too, new_image("stays.jpg", 2)):
        other.add([image], pair.model_fingerprint)
    view = GalleryView(pair, store)
    receipts = [erase(view, [sealed_too]), erase(view, ["gone.jpg"])]
    assert [one["what"] for one in receipts[1]["pending"]] == ["live"]
    folders = compact.main(CompactConfig(workspace=shared.uri, wait_s=0))
    assert folders["collection"].uri.startswith(f"{shared}/collection/folded-")
    left = s3.objects(shared.uri)
    everything = b"".join(left.values())
    for image_id, crop, vector in (
        (sealed_too, made.crops[sealed_too], made.vectors[sealed_too]),
        ("gone.jpg", added_too.jpeg, added_too.vector),
    ):
        assert middle(crop) not in everything and vector.tobytes() not in everything, image_id
        assert base64.b64encode(middle(crop))[4:-4] not in everything, image_id
    assert middle(made.crops["a/ada-000.jpg"]) in everything
    assert not any(data for name, data in left.items() if name.startswith("live/log/") and not name.endswith("0" * 12))
    new = Store.open(shared, tmp_path / "new host")
    for host in (store, other, new):
        now = GalleryView(Pair.open(shared.uri), host)
        assert now.entry("stays.jpg").where == "sealed" and len(now) == 40
        with pytest.raises(KeyError):
            now.entry("gone.jpg")
    for host in (store, other, new):
        host.close()


def test_one_at_a_time_among_hosts_too(shared: Folder) -> None:
    with compact._alone(shared, take_over=False):
        with pytest.raises(ValueError, match=r"Another compact runs on .*process \d+.*--take-over"):
            compact.main(CompactConfig(workspace=shared.uri, wait_s=0))
    assert compact.main(CompactConfig(workspace=shared.uri, wait_s=0))
    (shared / "live").write_bytes("compact-runs", b"of one that was killed")
    with pytest.raises(ValueError, match="of one that was killed"):
        compact.main(CompactConfig(workspace=shared.uri, wait_s=0))
    assert compact.main(CompactConfig(workspace=shared.uri, wait_s=0, take_over=True))
    assert not (shared / "live").exists("compact-runs")


def test_local_features_are_taken_again_by_the_same_settings_and_those_of_the_erased_go(
    made: Sealed, cluster: Cluster
) -> None:
    pair, settings = made.pair, FeatureConfig(extractor="aliked", weights="w", max_features=20, max_side=96)
    old = made.workspace / "features/made"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(describe, "network_of", lambda config: random_aliked())
        cfg = describe.DescribeConfig(collection=pair.collection.uri, out=old.uri, features=settings)
        before = describe.main(cfg)
    publish(made.workspace, collection=pair.collection, model=pair.model, index=pair.index, features=old)
    store = Store.open(made.workspace)
    store.add([new_image("new.jpg", 2)], pair.model_fingerprint)
    erase(GalleryView(Pair.open(made.workspace.uri), store), ["a/ada-000.jpg"])
    looked: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        extract = extraction.extract
        patch.setattr(extraction, "extract", lambda jpeg, **how: looked.append(jpeg) or extract(jpeg, **how))
        now = compacted(made)
    assert looked == [new_image("new.jpg", 2).jpeg], "what stays is not looked at again"
    assert now.features is not None and now.features != old and not old.list()
    after = read_manifest(now.features)
    assert after.config == before.config, "the network is known by its numbers, wherever it lies"
    assert after.inputs == {"collection": now.collection_fingerprint}
    assert after.counts["photos"] == before.counts["photos"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(describe, "network_of", lambda config: random_aliked())
        afresh = dataclasses.replace(cfg, collection=now.collection.uri, out=(made.workspace / "features/x").uri)
        assert describe.main(afresh).fingerprint == after.fingerprint, "to the byte what would be taken anew"
