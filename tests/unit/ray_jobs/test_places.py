"""Stores are asked before any work; paths of one machine are refused where there are several."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import exceptions

from ray_jobs.runtime import places
from ray_jobs.runtime.places import must_answer, must_be_seen
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.storage.failures import Outage
from tests.support.faulty_proxy import FaultyProxy
from tests.support.object_store import ObjectStore


def test_a_bucket_that_is_there_answers_and_one_that_is_not_is_told(
    s3: ObjectStore, bucket: Folder, tmp_path: Path
) -> None:
    must_answer(bucket, tmp_path / "not made yet")
    with pytest.raises(ValueError, match=rf"There is no bucket no-such at http://127.0.0.1:{s3.port}\. Make it"):
        must_answer(bucket, f"s3://no-such/w{s3.options}")


def test_a_store_that_does_not_answer_and_keys_that_have_expired_are_told_at_once(
    s3: ObjectStore, bucket: Folder
) -> None:
    with pytest.raises(Outage, match="Storage does not answer: asking for the bucket there failed"):
        must_answer("s3://there/w?endpoint_override=127.0.0.1:9&scheme=http")
    with FaultyProxy(s3.place) as proxy:
        proxy.injected.expired = True
        there = f"{bucket.uri.partition('?')[0]}?endpoint_override={proxy.address}&scheme=http"
        with pytest.raises(Outage, match="does not accept the credentials, asking for the bucket"):
            must_answer(there)


class Nodes:
    """In the place of `ray`: a cluster of two, whose other node sees only what is below `sees`."""

    def __init__(self, sees: Path | None, alone: bool = False) -> None:
        self.sees, self.asked = sees, 0
        self._nodes = [("here", "head", True), ("there", "worker-1", not alone), ("gone", "worker-2", False)]
        self.exceptions, self.deaths = exceptions, list[Exception]()

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": node, "NodeManagerHostname": host, "Alive": alive} for node, host, alive in self._nodes]

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "here")

    def remote(self, **_: Any) -> Any:
        return lambda work: SimpleNamespace(options=lambda **on: SimpleNamespace(remote=lambda paths: (work, paths)))

    def get(self, asked: Any, timeout: float) -> list[str]:
        self.asked += 1
        if self.sees is None:
            raise exceptions.GetTimeoutError
        if self.deaths:
            death = self.deaths.pop()
            if isinstance(death, exceptions.NodeDiedError):
                self._nodes = [(*node[:2], node[0] == "here") for node in self._nodes]
            raise death
        work, paths = asked
        return [path for path in paths if not path.startswith(str(self.sees)) or work([path])]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    source = tmp_path / "photos"
    source.mkdir()
    for number in range(12):
        (source / f"{number}.jpg").touch()
    return source, tmp_path / "new" / "out"


def cluster(monkeypatch: pytest.MonkeyPatch, sees: Path | None, alone: bool = False) -> Nodes:
    nodes = Nodes(sees, alone)
    strategy = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)
    monkeypatch.setitem(sys.modules, "ray", nodes)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", strategy)  # type: ignore[arg-type]
    return nodes


def test_what_all_nodes_see_is_shared_and_nothing_is_left_of_the_question(
    tmp_path: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = folders
    nodes = cluster(monkeypatch, tmp_path)
    must_be_seen(out, [source, source / "1.jpg"])
    assert nodes.asked == 1, "one node besides this one is alive"
    assert list(out.iterdir()) == []


def test_a_path_that_a_node_does_not_see_is_refused_with_the_way_out(
    tmp_path: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = folders
    cluster(monkeypatch, source)
    with pytest.raises(ValueError, match=rf"node worker-1 does not see what is at {out}: .* \(s3://BUCKET/PATH"):
        must_be_seen(out, [source])
    cluster(monkeypatch, out)
    with pytest.raises(ValueError, match=f"node worker-1 does not see what is at {source}:"):
        must_be_seen(out, [source])
    cluster(monkeypatch, None)
    with pytest.raises(ValueError, match="The node worker-1 did not answer within 120 s"):
        must_be_seen(out, [source])
    assert list(out.iterdir()) == []


def test_a_node_that_is_lost_before_it_answers_is_left_out_and_one_whose_worker_died_is_asked_again(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = folders
    monkeypatch.setattr(places, "_ONCE_MORE_AFTER", 0.0)
    nodes = cluster(monkeypatch, source)
    nodes.deaths = [exceptions.TaskUnschedulableError("no such node"), exceptions.WorkerCrashedError()]
    with pytest.raises(ValueError, match="node worker-1 does not see what is at"):
        must_be_seen(out, [source])
    assert nodes.asked == 3
    nodes.deaths = [exceptions.NodeDiedError("its raylet ended")]
    must_be_seen(out, [source])
    assert nodes.asked == 4


def test_a_cluster_of_one_and_places_in_stores_are_not_asked(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = folders
    nodes = cluster(monkeypatch, source, alone=True)
    must_be_seen(out, [source])
    nodes = cluster(monkeypatch, source)
    must_be_seen("s3://bucket/w", ["s3://bucket/photos"])
    assert nodes.asked == 0 and not out.exists()


def test_a_few_names_of_a_source_are_looked_for(folders: tuple[Path, Path]) -> None:
    source, out = folders
    found = places._some_of(source)
    assert found[0] == str(source) and len(found) == 6 and places.missing(found) == []
    assert places._some_of(source / "1.jpg") == [str(source / "1.jpg")]
    assert places.missing([str(out), str(source)]) == [str(out)]


def test_ray_is_told_of_a_path_or_of_a_file_system_that_it_can_send(bucket: Folder, tmp_path: Path) -> None:
    assert places.as_ray_says(Folder.of(tmp_path)) == {"storage_path": str(tmp_path)}
    bucket.write_bytes("a", b"x")
    told = places.as_ray_says(bucket)
    sent = pickle.loads(pickle.dumps(told))  # noqa: S301  as Ray does
    assert sent["storage_filesystem"].get_file_info(f"{sent['storage_path']}/a").size == 1
