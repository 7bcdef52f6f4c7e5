"""Both pipelines in an object store that fails: the same final fingerprints as undisturbed, no photo rejected for it.

    python tests/faults/storage.py faces places --share 0.05 --delay 5 --silence 60

A proxy before an S3 server answers a share of all requests with 503, a reset (before and after the store did what it
was asked for), late, or by half; then it answers nothing at all for a while; then it refuses the credentials until the
job has stopped. Everything runs on this machine, on loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from retrieval.artifacts.folder import Folder  # noqa: E402
from retrieval.artifacts.manifest import MANIFEST, Manifest, read_manifest  # noqa: E402
from retrieval.artifacts.published import read_current  # noqa: E402
from retrieval.artifacts.storage.failures import Outage  # noqa: E402
from tests.support.faulty_proxy import FaultyProxy  # noqa: E402
from tests.support.object_store import ObjectStore, object_store  # noqa: E402


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to: kind -> fingerprint of what was published, and photos left out by reason."""

    fingerprints: dict[str, str]
    rejected: dict[str, int]
    seconds: float

    @classmethod
    def of(cls, workspace: Folder, seconds: float) -> Result:
        folders = read_current(workspace)
        seals: dict[str, Manifest] = {kind: read_manifest(folder) for kind, folder in folders.items()}
        counts = seals["collection"].counts
        return cls({kind: seal.fingerprint for kind, seal in seals.items()}, counts["rejected_by_reason"], seconds)

    @property
    def decides(self) -> tuple[dict[str, str], dict[str, int]]:
        return self.fingerprints, self.rejected


def faces(source: Folder, workspace: Folder, store: str) -> Any:
    """Photos that nobody labelled, with the networks of the development packages."""
    from ray_jobs.presets import FACES

    return replace(FACES, source=source.uri, layout="folder", workspace=workspace.uri, tracking_uri=store)


def places(source: Folder, workspace: Folder, store: str) -> Any:
    """Reconstruction, training, whitening, evaluation: small ones."""
    from tests.support.road import SMALL_LANDMARKS

    return replace(SMALL_LANDMARKS, source=source.uri, workspace=workspace.uri, tracking_uri=store)


ROADS = {"faces": faces, "places": places}


def draw(road: str, to: Folder) -> int:
    """Photos into the store, and one file that is none. Returns how many there are."""
    with tempfile.TemporaryDirectory() as folder:
        if road == "faces":
            from retrieval.data.demo.faces import draw_collection

            draw_collection(Path(folder), num_identities=6, images_per_identity=4, seed=3)
        else:
            from retrieval.data.demo.places import write_scenes
            from tests.support.road import SCENES

            write_scenes(Path(folder), SCENES)
        photos = sorted(Path(folder).rglob("*.jpg"))
        for number, photo in enumerate(photos):
            to.write_bytes(f"{2019 + number % 2}/IMG_{number:04}.jpg", photo.read_bytes())
        to.write_bytes("2019/broken.jpg", b"no photo at all")
    return len(photos) + 1


def run(road: str, source: Folder, workspace: Folder, store: str) -> Result:
    from ray_jobs import pipeline

    began = time.monotonic()
    pipeline.main(ROADS[road](source, workspace, store))
    return Result.of(workspace, time.monotonic() - began)


class Trial:
    """One road, first undisturbed, then under each disturbance in a workspace of its own."""

    def __init__(
        self, road: str, store: ObjectStore, proxy: FaultyProxy, folder: Path, args: argparse.Namespace
    ) -> None:
        self.road, self._store, self._proxy, self._folder, self._args = road, store, proxy, folder, args
        self._photos = Folder.of(f"{store.bucket()}/photos{store.options}")
        self._num = draw(road, self._photos)
        self.undisturbed = self._run("undisturbed", through=False)
        self.failed = 0

    def share(self) -> None:
        """Some requests fail, now and then, in all ways."""
        injected = self._proxy.injected
        injected.share, injected.delay_s = self._args.share, self._args.delay
        self._compare(f"{100 * self._args.share:g} % of requests", self._run("share"))

    def silence(self) -> None:
        """In the middle of it, nothing is answered for a while."""
        self._proxy.after(self._args.after, lambda: self._proxy.silence(self._args.silence))
        self._compare(f"{self._args.silence:g} s of nothing", self._run("silence"))

    def expired(self) -> None:
        """Credentials expire half-way; when they are renewed the same command goes on."""
        self._proxy.after(self._args.after, self._proxy.expire)
        workspace, said = self._workspace("expired"), ""
        try:
            run(self.road, self._through(self._photos), workspace, self._tracking("expired"))
        except OSError as error:
            said = str(getattr(error, "cause", None) or error)
            stopped = isinstance(getattr(error, "cause", None) or error, Outage)
        else:
            stopped = False
        self._proxy.injected.expired = False
        plain = Folder.of(f"{workspace.uri.partition('?')[0]}{self._store.options}")
        sealed = sum(name.endswith(MANIFEST) for name in plain.list())
        print(f"{self.road:7} stopped: {stopped}, {sealed} folders sealed by then: {said[:160]}...", flush=True)
        self.failed += not stopped
        self._compare("expired, resumed", self._run("expired"))

    def _run(self, name: str, *, through: bool = True) -> Result:
        injected = self._proxy.injected
        injected.seen.clear()
        source = self._through(self._photos) if through else self._photos
        try:
            return run(self.road, source, self._workspace(name, through=through), self._tracking(name))
        finally:
            injected.share = 0.0

    def _compare(self, name: str, result: Result) -> None:
        same = result.decides == self.undisturbed.decides
        seen = ", ".join(f"{count} {what}" for what, count in sorted(self._proxy.injected.seen.items()))
        print(
            f"{self.road:7} {name:20} {'SAME' if same else 'OTHER'} {len(result.fingerprints)} fingerprints, "
            f"rejected {result.rejected} of {self._num}, {result.seconds:.0f} s against "
            f"{self.undisturbed.seconds:.0f}; {seen}",
            flush=True,
        )
        self.failed += not same
        if not same:
            print(f"  undisturbed {self.undisturbed}\n  disturbed   {result}", flush=True)

    def _workspace(self, name: str, *, through: bool = True) -> Folder:
        if not hasattr(self, "_bucket"):
            self._bucket = self._store.bucket()
        place = Folder.of(f"{self._bucket}/{name}{self._store.options}")
        return self._through(place) if through else place

    def _through(self, place: Folder) -> Folder:
        return Folder.of(f"{place.uri.partition('?')[0]}?endpoint_override={self._proxy.address}&scheme=http")

    def _tracking(self, name: str) -> str:
        return f"sqlite:///{self._folder}/{self.road}-{name}.db"


@contextlib.contextmanager
def machines() -> Iterator[Path]:
    """A Ray of our own, and a folder that goes when it does."""
    import ray

    with tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "ray").mkdir()
        ray.init(num_cpus=2, include_dashboard=False, _temp_dir=f"{folder}/ray", log_to_driver=False)
        try:
            yield Path(folder)
        finally:
            ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roads", nargs="*", default=["faces", "places"], choices=ROADS)
    parser.add_argument("--only", nargs="*", default=["share", "silence", "expired"])
    parser.add_argument("--share", type=float, default=0.05, help="of all requests")
    parser.add_argument("--delay", type=float, default=5.0, help="seconds")
    parser.add_argument("--silence", type=float, default=60.0, help="seconds")
    parser.add_argument("--after", type=int, default=250, help="requests, until silence or expiry begins")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    args = parser.parse_args()
    os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "OMP_NUM_THREADS": "1"})
    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"})
    failed = 0
    with object_store() as store:
        os.environ.update(store.environment)
        del os.environ["AWS_ENDPOINT_URL"]  # addresses say it
        with FaultyProxy(store.place, seed=args.seed) as proxy, machines() as folder:
            print(f"seed {args.seed}", flush=True)
            for road in args.roads:
                trial = Trial(road, store, proxy, folder, args)
                for name in args.only:
                    getattr(trial, name)()
                failed += trial.failed
    raise SystemExit(f"{failed} trials failed" if failed else 0)


if __name__ == "__main__":
    main()
