"""MLflow: what was run, on what, how it went, and which bundle is the champion. See registry.py and store.py.

One MLflow run is one pipeline run; its steps are prefixes (`train.epochs`): docs/explanation/tracking.md argues it.
A `Tracker` is two strings, the store and the run, so it travels to a Ray Train worker inside its config::

    tracker = open_run(store_uri(None, workspace), experiment="faces", key=digest(config))   # driver
    tracker.log_params(config, prefix="train")
    tracker.log_metrics({"val/mAP": 0.61}, step=3)                                            # rank 0, any process
    tracker.register_bundle(model, name="faces", metric="val/mAP", value=0.61, measured_on=collection_fingerprint)
    tracker.finish()
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.runtime.registry import CHAMPION, Registration, champion_of, compare, version_of
from ray_jobs.runtime.store import client_of, explained, reach, sqlite_path
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import digest, plain
from retrieval.artifacts.manifest import MANIFEST, read_manifest
from retrieval.reports.tables import read_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

ARTIFACTS = "mlflow-artifacts"

_LONGEST_PARAM = 6000  # characters, MLflow's limit


@dataclass(frozen=True, slots=True)
class Tracker:
    """A handle on one MLflow run: the store's URI and the run's id. Picklable; any process may log through it."""

    uri: str
    run_id: str

    def log_params(self, config: Any, prefix: str) -> None:
        """Log a config dataclass or dict, flattened to `prefix.field`, and whole as config/<prefix>.json.

        MLflow never changes a parameter. Where a resumed run brings another value (a worker count, say) the first
        stays and a warning names it.
        """
        from mlflow.entities import Param

        values = {name: _as_text(value) for name, value in _flat(plain(config), prefix, ".")}
        client = client_of(self.uri)
        known = client.get_run(self.run_id).data.params
        for name in sorted(set(values) & set(known)):
            if values[name] != known[name]:
                logger.warning("MLflow run %s keeps %s=%s; now %s", self.run_id, name, known[name], values[name])
        new = [Param(name, value) for name, value in values.items() if name not in known]
        client.log_batch(self.run_id, params=new)  # however many: the client sends them in batches of its own
        client.log_dict(self.run_id, plain(config), f"config/{prefix}.json")

    def log_metrics(self, values: Mapping[str, Any], *, step: int = 0, prefix: str = "") -> None:
        """Log the numbers among `values` (nested mappings join with `/`) at `step`, usually the epoch.

        MLflow forbids `@` in names, so `recall@1` is shown as `recall_at_1`. A value already there for the same name
        and step is left alone, so that an epoch repeated after a crash does not double a point of the curve.
        """
        from mlflow.entities import Metric

        client = client_of(self.uri)
        present = client.get_run(self.run_id).data.metrics
        fresh = []
        for name, value in _flat(values, prefix, "/"):
            key = name.replace("@", "_at_")
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if key in present and any(seen.step == step for seen in client.get_metric_history(self.run_id, key)):
                continue
            fresh.append(Metric(key, float(value), timestamp=int(time.time() * 1000), step=step))
        if fresh:
            client.log_batch(self.run_id, metrics=fresh)

    def log_files(self, folder: Folder, names: Sequence[str], *, to: str) -> None:
        """Copy files of an artefact folder (local or in an object store) into the run's artifacts below `to`."""
        client = client_of(self.uri)
        with _local(folder, names) as root:
            for name in names:
                below = os.path.dirname(name)
                client.log_artifact(self.run_id, str(root / name), f"{to}/{below}" if below else to)

    def log_folder(self, folder: Folder, *, to: str) -> None:
        """Copy all files of a small artefact folder (a report, a bundle) into the run's artifacts below `to`."""
        self.log_files(folder, list(folder.list()), to=to)

    def log_inputs(self, folders: Mapping[str, Folder]) -> None:
        """Record the sealed folders of this run: fingerprints as tags, a collection also as an MLflow data set."""
        from mlflow.entities import Dataset, DatasetInput, RunTag

        client, tags = client_of(self.uri), []
        for name, folder in folders.items():
            manifest = read_manifest(folder)
            tags += [RunTag(f"{name}.fingerprint", manifest.fingerprint), RunTag(f"{name}.folder", str(folder))]
            if manifest.kind == "collection":
                source = json.dumps({"uri": str(folder)})
                profile = _as_text(manifest.counts)
                data = Dataset(name, manifest.fingerprint[:32], "local", source, profile=profile)
                client.log_inputs(self.run_id, [DatasetInput(data, [])])
        client.log_batch(self.run_id, tags=tags)

    def log_results(self, folders: Mapping[str, Folder], *, model_name: str) -> Registration | None:
        """A pipeline's figures, report and bundle; that is registered if it was validated, or is a frozen network.

        Args: folders: collection, model and index, sealed, and whatever else was made; report where there are figures.
        """
        self.log_inputs(folders)
        if "report" in folders:
            self.log_folder(folders["report"], to="report")
            for name, figures in read_metrics(folders["report"])["systems"].items():
                self.log_metrics(figures, prefix=f"test/{name.replace(' + ', '_')}")
        counts = read_manifest(folders["model"]).counts
        measured = {"name": model_name, "measured_on": read_manifest(folders["collection"]).fingerprint}
        if "best_val_mAP" not in counts:  # it was not trained here, so nothing of this collection was kept to choose by
            return self.register_bundle(folders["model"], metric="", value=None, **measured)
        if counts["best_val_mAP"] is None:
            logger.warning("Nothing to validate on, so the bundle has no figure to be ranked by: it is not registered.")
            return None
        return self.register_bundle(folders["model"], metric="val/mAP", value=counts["best_val_mAP"], **measured)

    def register_bundle(
        self, bundle: Folder, *, name: str, metric: str, value: float | None, measured_on: str
    ) -> Registration:
        """Store the bundle with the run, register it as the next version of `name`, and make it champion if better.

        It becomes champion when there is none, or when `value` (higher is better) beats the present champion's value
        of the same `metric` on the same data. Values measured on other data do not compare: the alias then stays, and
        `promote` moves it by hand. A bundle already registered keeps its version.

        Args:
            value: None for a bundle that was not validated: it becomes champion only where there is none.
            measured_on: fingerprint of the collection whose validation split gave `value`.
        """
        if value is not None and not math.isfinite(value):
            raise ValueError(
                f"Cannot rank bundle {bundle} by {metric}={value}: give a finite number, higher is better."
            )
        manifest = read_manifest(bundle, "model")
        client = client_of(self.uri)
        tags = {"fingerprint": manifest.fingerprint}
        if value is not None:
            tags |= {"metric": metric, "value": repr(value), "measured_on": measured_on}
        version = version_of(client, name, manifest.fingerprint)
        if version is None:
            # A folder of its own: a run that registers a second bundle must not change what the first version is.
            where = f"bundle/{manifest.fingerprint[:12]}"
            self.log_files(bundle, [*manifest.all_files, MANIFEST], to=where)
            # The bundle as it is, weights and JSON: MLflow's own model flavours would pickle code or trace the net.
            version = client.create_model_version(
                name,
                source=f"runs:/{self.run_id}/{where}",
                run_id=self.run_id,
                tags=tags,
                description="not validated" if value is None else f"{metric} = {value:.4f}",
            )
        champion = champion_of(client, name)
        better, reason = compare(version, champion)
        if better:
            client.set_registered_model_alias(name, CHAMPION, version.version)
        logger.info("MLflow: %s version %s: %s", name, version.version, reason)
        crowned = better or (champion is not None and champion.version == version.version)
        return Registration(name=name, version=str(version.version), is_champion=crowned, reason=reason)

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run. `status`: FINISHED, FAILED or KILLED. A later `open_run` with the same key opens it again."""
        client_of(self.uri).set_terminated(self.run_id, status)


def open_run(
    uri: str, *, experiment: str, key: str, name: str | None = None, tags: Mapping[str, str] | None = None
) -> Tracker:
    """Open the run of this work: the one begun earlier under the same `key`, else a new one.

    Everything a run needs is tried here, at the start: the store is reached, the run is written and an artifact is
    stored, so that hours of training do not end in a store that cannot be written.

    Args:
        uri: from `store_uri`.
        key: names the work, say the digest of its config and workspace; a resumed pipeline goes on in the same run.

    Raises: ValueError if the store or its artifact folder cannot be reached or written.
    """
    reach(uri)
    with explained(uri):
        client = client_of(uri)
        found = client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else _new_experiment(client, experiment, uri)
        runs = client.search_runs([number], filter_string=f"tags.key = '{key}'", max_results=1)
        if runs:
            run_id = runs[0].info.run_id
            client.update_run(run_id, status="RUNNING")
        else:
            run_id = client.create_run(number, run_name=name, tags={**(tags or {}), "key": key}).info.run_id
        client.log_dict(run_id, {"key": key, "tags": dict(tags or {})}, "config/run.json")
    logger.info("MLflow: run %s of experiment '%s' at %s", run_id, experiment, uri)
    return Tracker(uri, run_id)


def _new_experiment(client: MlflowClient, experiment: str, uri: str) -> str:
    """Its artifacts lie beside a SQLite file; a server knows its own place."""
    path = sqlite_path(uri)
    # The tag opens MLflow's page on training runs; its default view is for language models.
    kind = {"mlflow.experimentKind": "custom_model_development"}
    return client.create_experiment(experiment, str(path.parent / ARTIFACTS) if path else None, tags=kind)


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
