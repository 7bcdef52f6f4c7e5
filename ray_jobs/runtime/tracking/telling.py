"""What MLflow is told of a run, a function a kind of news. Each may be told twice, and then changes nothing.

Their arguments are plain values, so that news can be kept as JSON (`outbox`) and told later, by another process.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.runtime.tracking.registry import Registration, crown, version_of
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import digest
from retrieval.artifacts.manifest import MANIFEST, read_manifest

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

_LONGEST_PARAM = 6000  # characters, MLflow's limit


def params(client: MlflowClient, run_id: str, *, config: Mapping[str, Any], prefix: str) -> None:
    """A config, flattened to `prefix.field`, and whole as config/<prefix>.json.

    MLflow never changes a parameter. Where a resumed run brings another value (a worker count, say) the first
    stays and a warning names it.
    """
    from mlflow.entities import Param

    values = {name: _as_text(value) for name, value in _flat(config, prefix, ".")}
    known = client.get_run(run_id).data.params
    for name in sorted(set(values) & set(known)):
        if values[name] != known[name]:
            logger.warning("MLflow run %s keeps %s=%s; now %s", run_id, name, known[name], values[name])
    new = [Param(name, value) for name, value in values.items() if name not in known]
    client.log_batch(run_id, params=new)  # however many: the client sends them in batches of its own
    client.log_dict(run_id, dict(config), f"config/{prefix}.json")


def metrics(
    client: MlflowClient, run_id: str, *, rows: Sequence[tuple[int, Mapping[str, Any]]], prefix: str, at: int
) -> None:
    """The numbers among each row's values (nested mappings join with `/`) at its step, usually the epoch.

    MLflow forbids `@` in names, so `recall@1` is shown as `recall_at_1`. A value already there for the same name
    and step is left alone, so that an epoch repeated after a crash does not double a point of the curve.

    Args: at: when it was measured, in milliseconds.
    """
    from mlflow.entities import Metric

    points: dict[str, dict[int, float]] = {}
    for step, values in rows:
        for name, value in _flat(values, prefix, "/"):
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            points.setdefault(name.replace("@", "_at_"), {})[step] = float(value)
    present = client.get_run(run_id).data.metrics
    fresh = []
    for key, by_step in points.items():
        there = {seen.step for seen in client.get_metric_history(run_id, key)} if key in present else set()
        fresh += [Metric(key, value, timestamp=at, step=step) for step, value in by_step.items() if step not in there]
    if fresh:
        client.log_batch(run_id, metrics=fresh)


def files(client: MlflowClient, run_id: str, *, folder: str, names: Sequence[str], to: str) -> None:
    """Files of an artefact folder (local or in an object store), copied into the run's artifacts below `to`."""
    with _local(Folder.of(folder), names) as root:
        for name in names:
            below = os.path.dirname(name)
            client.log_artifact(run_id, str(root / name), f"{to}/{below}" if below else to)


def inputs(client: MlflowClient, run_id: str, *, folders: Mapping[str, str]) -> None:
    """The sealed folders of this run: fingerprints as tags, a collection also as an MLflow data set."""
    from mlflow.entities import Dataset, DatasetInput, RunTag

    tags = []
    for name, folder in folders.items():
        manifest = read_manifest(Folder.of(folder))
        tags += [RunTag(f"{name}.fingerprint", manifest.fingerprint), RunTag(f"{name}.folder", folder)]
        if manifest.kind == "collection":
            source = json.dumps({"uri": folder})
            profile = _as_text(manifest.counts)
            data = Dataset(name, manifest.fingerprint[:32], "local", source, profile=profile)
            client.log_inputs(run_id, [DatasetInput(data, [])])
    client.log_batch(run_id, tags=tags)


def bundle(
    client: MlflowClient, run_id: str, *, folder: str, name: str, metric: str, value: float | None, measured_on: str
) -> Registration:
    """The bundle, stored with the run, registered as the next version of `name`, and made champion if it is better.

    A bundle already registered keeps its version.

    Args:
        value: higher is better. None for a bundle that was not validated: champion only where there is none.
        measured_on: fingerprint of the collection whose validation split gave `value`.

    Raises: ValueError for a value that nothing can be ranked by.
    """
    if value is not None and not math.isfinite(value):
        raise ValueError(f"Cannot rank bundle {folder} by {metric}={value}: give a finite number, higher is better.")
    manifest = read_manifest(Folder.of(folder), "model")
    tags = {"fingerprint": manifest.fingerprint}
    if value is not None:
        tags |= {"metric": metric, "value": repr(value), "measured_on": measured_on}
    version = version_of(client, name, manifest.fingerprint)
    if version is None:
        # A folder of its own: a run that registers a second bundle must not change what the first version is.
        where = f"bundle/{manifest.fingerprint[:12]}"
        files(client, run_id, folder=folder, names=[*manifest.all_files, MANIFEST], to=where)
        # The bundle as it is, weights and JSON: MLflow's own model flavours would pickle code or trace the net.
        version = client.create_model_version(
            name,
            source=f"runs:/{run_id}/{where}",
            run_id=run_id,
            tags=tags,
            description="not validated" if value is None else f"{metric} = {value:.4f}",
        )
    is_champion, reason = crown(client, name, version)
    logger.info("MLflow: %s version %s: %s", name, version.version, reason)
    return Registration(name=name, version=str(version.version), is_champion=is_champion, reason=reason)


def finish(client: MlflowClient, run_id: str, *, status: str) -> None:
    """Close the run. Args: status: FINISHED, FAILED or KILLED."""
    client.set_terminated(run_id, status)


KINDS: dict[str, Callable[..., Any]] = {one.__name__: one for one in (params, metrics, files, inputs, bundle, finish)}
"""By the name under which they are kept."""


@contextmanager
def _local(folder: Folder, names: Sequence[str]) -> Iterator[Path]:
    """The folder as a local one; files of an object store are fetched for the length of the block."""
    if folder.is_local:
        yield Path(folder.path)
        return
    with tempfile.TemporaryDirectory() as temp:
        copy = Folder.of(temp)
        for name in names:
            copy.write_bytes(name, folder.read_bytes(name))
        yield Path(temp)


def _flat(values: Mapping[str, Any], prefix: str, separator: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        full = f"{prefix}{separator}{name}" if prefix else str(name)
        if isinstance(value, Mapping):
            yield from _flat(value, full, separator)
        else:
            yield full, value


def _as_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) <= _LONGEST_PARAM:
        return text
    return f"{text[: _LONGEST_PARAM - 100]}... sha256 {digest(text)}"
