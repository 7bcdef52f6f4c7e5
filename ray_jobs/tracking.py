"""MLflow: what was run, on what, how it went, and which bundle is the champion. The only module that imports mlflow.

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
import socket
import tempfile
import time
import urllib.parse
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# MLflow reports its use to its makers unless told not to; a job must not talk to strangers.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from retrieval.artifacts import MANIFEST, Folder, digest, hash_file, plain, read_manifest
from retrieval.champion import beats

logger = logging.getLogger(__name__)

STORE = "mlflow.db"
ARTIFACTS = "mlflow-artifacts"
CHAMPION = "champion"
_LONGEST_PARAM = 6000  # characters, MLflow's limit
_BATCH = 100  # params or tags in one call, MLflow's limit


def store_uri(given: str | None, workspace: str | Path | Folder) -> str:
    """The tracking store to use: `given`, else MLFLOW_TRACKING_URI, else SQLite in the workspace. Always absolute.

    Raises: ValueError if none is given and the workspace is an object store, which cannot hold a SQLite file.
    """
    uri = given or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        folder = Folder.of(workspace)
        if "://" in folder.uri:
            raise ValueError(
                f"The workspace {folder} is an object store and cannot hold MLflow's SQLite file. "
                f"Name a tracking server: --tracking-uri http://host:5000, or set MLFLOW_TRACKING_URI."
            )
        uri = f"sqlite:///{folder.path}/{STORE}"
    if (path := _sqlite_path(uri)) is not None:
        return f"sqlite:///{path}"  # Ray's workers run in another folder: a relative path would name another file
    return uri


@dataclass(frozen=True, kw_only=True, slots=True)
class Registration:
    """What became of a bundle offered to the registry."""

    name: str
    version: str
    is_champion: bool
    """Whether the alias `champion` points at this version now."""
    reason: str
    """Why it does or does not, in words."""


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
        values = {name: _as_text(value) for name, value in _flat(plain(config), prefix, ".")}
        client = _client(self.uri)
        known = client.get_run(self.run_id).data.params
        for name in sorted(set(values) & set(known)):
            if values[name] != known[name]:
                logger.warning("MLflow run %s keeps %s=%s; now %s", self.run_id, name, known[name], values[name])
        new = [Param(name, value) for name, value in values.items() if name not in known]
        for start in range(0, len(new), _BATCH):
            client.log_batch(self.run_id, params=new[start : start + _BATCH])
        client.log_dict(self.run_id, plain(config), f"config/{prefix}.json")

    def log_metrics(self, values: Mapping[str, Any], *, step: int = 0, prefix: str = "") -> None:
        """Log the numbers among `values` (nested mappings join with `/`) at `step`, usually the epoch.

        MLflow forbids `@` in names, so `recall@1` is shown as `recall_at_1`. A value already there for the same name
        and step is left alone, so that an epoch repeated after a crash does not double a point of the curve.
        """
        client = _client(self.uri)
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
        client = _client(self.uri)
        with _local(folder, names) as root:
            for name in names:
                below = os.path.dirname(name)
                client.log_artifact(self.run_id, str(root / name), f"{to}/{below}" if below else to)

    def log_folder(self, folder: Folder, *, to: str) -> None:
        """Copy all files of a small artefact folder (a report, a bundle) into the run's artifacts below `to`."""
        self.log_files(folder, list(folder.list()), to=to)

    def log_inputs(self, folders: Mapping[str, Folder]) -> None:
        """Record the sealed folders of this run: fingerprints as tags, a collection also as an MLflow data set."""
        client, tags = _client(self.uri), []
        for name, folder in folders.items():
            manifest = read_manifest(folder)
            tags += [RunTag(f"{name}.fingerprint", manifest.fingerprint), RunTag(f"{name}.folder", str(folder))]
            if manifest.kind == "collection":
                source = json.dumps({"uri": str(folder)})
                profile = _as_text(manifest.counts)
                data = Dataset(name, manifest.fingerprint[:32], "local", source, profile=profile)
                client.log_inputs(self.run_id, [DatasetInput(data, [])])
        client.log_batch(self.run_id, tags=tags)

    def register_bundle(
        self, bundle: Folder, *, name: str, metric: str, value: float, measured_on: str
    ) -> Registration:
        """Store the bundle with the run, register it as the next version of `name`, and make it champion if better.

        It becomes champion when there is none, or when `value` (higher is better) beats the present champion's value
        of the same `metric` on the same data. Values measured on other data do not compare: the alias then stays, and
        `promote` moves it by hand. A bundle already registered keeps its version.

        Args:
            measured_on: fingerprint of the collection whose validation split gave `value`.
        """
        if not math.isfinite(value):
            raise ValueError(
                f"Cannot rank bundle {bundle} by {metric}={value}: give a finite number, higher is better."
            )
        manifest = read_manifest(bundle, "model")
        client = _client(self.uri)
        tags = {"fingerprint": manifest.fingerprint, "metric": metric, "value": repr(value), "measured_on": measured_on}
        version = _version_of(client, name, manifest.fingerprint)
        if version is None:
            # A folder of its own: a run that registers a second bundle must not change what the first version is.
            where = f"bundle/{manifest.fingerprint[:12]}"
            self.log_files(bundle, [*manifest.files, MANIFEST], to=where)
            # The bundle as it is, safetensors and JSON: MLflow's own model flavours would pickle code or trace the net.
            version = client.create_model_version(
                name,
                source=f"runs:/{self.run_id}/{where}",
                run_id=self.run_id,
                tags=tags,
                description=f"{metric} = {value:.4f}",
            )
        champion = _champion(client, name)
        better, reason = _compare(version, champion)
        if better:
            client.set_registered_model_alias(name, CHAMPION, version.version)
        logger.info("MLflow: %s version %s: %s", name, version.version, reason)
        crowned = better or (champion is not None and champion.version == version.version)
        return Registration(name=name, version=str(version.version), is_champion=crowned, reason=reason)

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run. `status`: FINISHED, FAILED or KILLED. A later `open_run` with the same key opens it again."""
        _client(self.uri).set_terminated(self.run_id, status)


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
    _reach(uri)
    with _explained(uri):
        client = _client(uri)
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
    path = _sqlite_path(uri)
    # The tag opens MLflow's page on training runs; its default view is for language models.
    kind = {"mlflow.experimentKind": "custom_model_development"}
    return client.create_experiment(experiment, str(path.parent / ARTIFACTS) if path else None, tags=kind)


def promote(uri: str, name: str, version: str) -> None:
    """Make `version` of model `name` the champion whatever its metric: the way across a change of validation data."""
    with _explained(uri):
        _client(uri).set_registered_model_alias(name, CHAMPION, version)


def fetch_bundle(model_uri: str, into: str | Path, *, uri: str) -> Path:
    """Download a registered bundle and check its files against its manifest.

    Args:
        model_uri: `models:/<name>@<alias>` or `models:/<name>/<version>`.
        into: local folder; the bundle comes to lie in <into>/<name>-<version>-<fingerprint>. One already there is used.
        uri: the tracking store, from `store_uri`.

    Raises: ValueError if there is no such model, or the download is not the bundle that was registered.
    """
    _reach(uri)
    with _explained(uri):
        version = _resolve(_client(uri), model_uri)
        fingerprint = version.tags.get("fingerprint", "")
        target = Path(into).expanduser().absolute() / f"{version.name}-{version.version}-{fingerprint[:12]}"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tmp-") as temp:
                got = mlflow.artifacts.download_artifacts(str(version.source), dst_path=temp, tracking_uri=uri)
                _check_download(Folder.of(got), fingerprint, model_uri)
                os.replace(got, target)
    return target


# --- the registry ---


def _version_of(client: MlflowClient, name: str, fingerprint: str) -> ModelVersion | None:
    """The version that already holds this bundle, if any; makes the model's entry on first use."""
    try:
        client.get_registered_model(name)
    except MlflowException as missing:
        if missing.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name, description="Image embedding bundles: safetensors weights + JSON spec.")
    same = [v for v in client.search_model_versions(f"name = '{name}'") if v.tags.get("fingerprint") == fingerprint]
    return same[0] if same else None


def _champion(client: MlflowClient, name: str) -> ModelVersion | None:
    number = client.get_registered_model(name).aliases.get(CHAMPION)
    return client.get_model_version(name, str(number)) if number else None


def _compare(version: ModelVersion, champion: ModelVersion | None) -> tuple[bool, str]:
    if champion is None:
        return True, "first version, so it is the champion"
    if champion.version == version.version:
        return False, "it is the champion already"
    better, reason = beats(version.tags, champion.tags)
    return better, f"champion is version {champion.version}: {reason}"


def _resolve(client: MlflowClient, model_uri: str) -> ModelVersion:
    rest = model_uri.removeprefix("models:/")
    name, at, alias = rest.partition("@")
    if at and rest != model_uri:
        return client.get_model_version_by_alias(name, alias)
    name, slash, number = rest.rpartition("/")
    if slash and name and rest != model_uri:
        return client.get_model_version(name, number)
    raise ValueError(f"Cannot read model URI '{model_uri}'. Write models:/<name>@champion or models:/<name>/<version>.")


def _check_download(bundle: Folder, fingerprint: str, model_uri: str) -> None:
    manifest = read_manifest(bundle, "model")
    changed = [name for name, known in manifest.files.items() if hash_file(bundle, name) != known]
    if changed or manifest.fingerprint != fingerprint:
        raise ValueError(
            f"{model_uri} is not the bundle that was registered ({', '.join(changed) or 'another fingerprint'}): "
            f"its stored artifact was changed or damaged. Register the bundle again, or name another version."
        )


# --- the store ---


def _client(uri: str) -> MlflowClient:
    """A client of this store, leaving MLflow's process-wide settings alone."""
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # MLflow 3.17 on SQLAlchemy 2.1 uses a deprecated loader; the warning is theirs, not the user's.
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy")
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _sqlite_path(uri: str) -> Path | None:
    """The absolute file of a sqlite URI, with three or four slashes; None for any other store."""
    return Path(uri.removeprefix("sqlite:///")).expanduser().absolute() if uri.startswith("sqlite:///") else None


def _reach(uri: str) -> None:
    """Fail within seconds: MLflow itself would retry an unreachable store for minutes.

    Raises: ValueError if a SQLite file's folder cannot be made or written, or nothing listens at a server's address.
    """
    try:
        if (path := _sqlite_path(uri)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            target = path if path.exists() else path.parent
            if not os.access(target, os.W_OK):
                raise PermissionError(f"no permission to write {target}")
        elif uri.startswith(("http://", "https://")):
            parts = urllib.parse.urlsplit(uri)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), timeout=10).close()
    except OSError as failed:
        raise ValueError(_cannot_use(uri, failed)) from failed


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn what MLflow and its database raise into one message that says what to do."""
    try:
        yield
    except (MlflowException, OSError) as failed:
        raise ValueError(_cannot_use(uri, failed)) from failed


def _cannot_use(uri: str, failed: Exception) -> str:
    return (
        f"MLflow at {uri} cannot be used: {failed}. "
        f"Start the server, free or correct the path, or name another store with --tracking-uri."
    )


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
