"""What all tests share: a quiet, deterministic environment, one local Ray cluster, and where real photographs are.

A test's folder says what it needs: tests/unit nothing, tests/cluster and tests/e2e a Ray cluster, tests/gpu a
CUDA device.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval.artifacts.folder import Folder
    from tests.support.object_store import ObjectStore

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("RETRIEVAL_DATA", ROOT.parent / "shared" / "data"))

# Ray puts sockets below its temp folder, and a socket's path is limited to about 100 characters: keep it short.
RAY_TMPDIR = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))
(RAY_TMPDIR / "ray").mkdir()

# Set before torch, cv2, faiss or ray are imported, and inherited by every worker and every command a test starts.
os.environ.update(
    {
        "RAY_TMPDIR": str(RAY_TMPDIR),  # away from any other cluster of this machine
        "RAY_AUTH_MODE": "token",  # as on a real cluster, with a token of our own: none is written to the home folder
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RETRIEVAL_CACHE": str(RAY_TMPDIR / "cache"),  # exported networks
        # For the S3 server of the tests, and never anybody's own: Ray's workers are started with them.
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "RETRIEVAL_PATIENCE": "0",  # what fails is to fail at once; tests of waiting say how long
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default; the present one warns
        "OMP_NUM_THREADS": "1",  # sums in one order: results equal to the bit from run to run
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        "GIT_PYTHON_REFRESH": "quiet",
    }
)
os.environ.pop("RAY_ADDRESS", None)

import pytest  # noqa: E402

NEEDS_RAY = {"cluster", "e2e"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their folder; deselect those that need a GPU or photographs this machine does not have."""
    for item in items:
        folder = item.path.relative_to(ROOT).parts[1] if item.path.is_relative_to(ROOT / "tests") else ""
        if folder in {"cluster", "e2e", "gpu"}:
            item.add_marker(folder)
    absent = set()
    if any(item.get_closest_marker("gpu") for item in items) and not _has_gpu():
        absent.add("gpu")
    if not (REAL_DATA / "faces").is_dir():
        absent.add("realdata")
    gone = [item for item in items if any(item.get_closest_marker(name) for name in absent)]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_unconfigure() -> None:
    shutil.rmtree(RAY_TMPDIR, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_ray_in_unit_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """retrieval/ works without Ray: a unit test that starts one, however deep down, fails at once."""
    if any(request.node.get_closest_marker(name) for name in NEEDS_RAY):
        return
    import sys

    if "ray" in sys.modules:  # else nothing can have called it yet, and importing it here would cost a second
        monkeypatch.setattr("ray.init", _refuse_ray)


def _refuse_ray(*_args: object, **_kwargs: object) -> None:
    raise AssertionError("A unit test called ray.init. Move it to tests/cluster, or Ray out of the code it tests.")


@pytest.fixture(autouse=True)
def _no_screen_of_another_test() -> Iterator[None]:
    """A job run in this process sets up the screen for its logs for good: as every driver does, but a test must not."""
    _take_screens_away()
    yield
    _take_screens_away()


def _take_screens_away() -> None:
    root = logging.getLogger()
    for handler in [each for each in root.handlers if type(each).__name__ == "ScreenHandler"]:
        root.removeHandler(handler)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """OpenCV works in the caller's thread alone, as it does in a worker."""
    from retrieval.images.pixels import limit_threads

    limit_threads(1)
    yield
    limit_threads(-1)


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One local 2-CPU Ray for the whole test session: starting one costs about ten seconds."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=512 * 2**20, _temp_dir=str(RAY_TMPDIR / "ray"))
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[ObjectStore]:
    """Starting one costs two seconds."""
    from tests.support.object_store import object_store

    with object_store() as store:
        yield store


@pytest.fixture
def s3(s3_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An S3 server that clients of this process find."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def bucket(s3: ObjectStore) -> Folder:
    """An empty place in an object store, by an address that says where that is."""
    from retrieval.artifacts.folder import Folder

    return Folder.of(f"{s3.bucket()}/it's a folder{s3.options}")


@pytest.fixture(scope="session")
def real_faces() -> Path:
    """The LFW photographs of ../shared/data, one folder a person. Use it with the mark `realdata`."""
    return REAL_DATA / "faces" / "lfw"
