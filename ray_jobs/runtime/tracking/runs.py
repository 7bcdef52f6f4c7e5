"""MLflow: what was run, on what, how it went, and which bundle is the champion. See registry.py and store.py.

One MLflow run is one pipeline run; its steps are prefixes (`train.epochs`): docs/explanation/tracking.md argues it.
A `Tracker` is three strings, the store, the run and the workspace, so it travels to a Ray Train worker in its config::

    tracker = open_run(store_uri(None, workspace), experiment="faces", key=digest(config), workspace=workspace)
    tracker.log_params(config, prefix="train")
    tracker.log_metrics({"val/mAP": 0.61}, step=3)                                            # rank 0, any process
    tracker.register_bundle(model, name="faces", metric="val/mAP", value=0.61, measured_on=collection_fingerprint)
    tracker.finish()

A store that is away after the run was opened ends nothing: see outbox.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray_jobs.runtime.tracking import telling
from ray_jobs.runtime.tracking.outbox import Outbox, is_away
from ray_jobs.runtime.tracking.registry import Registration
from ray_jobs.runtime.tracking.store import client_of, explained, make, reach, sqlite_path
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.storage.patience import seconds_told
from retrieval.reports.tables import read_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

ARTIFACTS = "mlflow-artifacts"
WAIT = "RETRIEVAL_MLFLOW_WAIT_S"
"""In the environment: how long the end of a run waits for a store that is away, in seconds. Default: 120."""

_ASK_EVERY = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Tracker:
    """A handle on one MLflow run. Picklable; any process may log through it."""

    uri: str
    """The store."""
    run_id: str
    workspace: str = ""
    """Where news is kept while the store is away; empty: then that is an error."""

    def log_params(self, config: Any, prefix: str) -> None:
        """Log a config dataclass or dict: see `telling.params`."""
        self._tell("params", config=plain(config), prefix=prefix)

    def log_metrics(self, values: Mapping[str, Any], *, step: int = 0, prefix: str = "") -> None:
        """Log the numbers among `values` at `step`, usually the epoch: see `telling.metrics`."""
        self._tell("metrics", rows=[[step, plain(values)]], prefix=prefix, at=int(time.time() * 1000))

    def log_history(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Log all epochs so far, each at its `epoch`; what is known of them stays as it is."""
        rows = [[int(values["epoch"]), plain(values)] for values in history]
        if rows:
            self._tell("metrics", rows=rows, prefix="", at=int(time.time() * 1000))

    def log_files(self, folder: Folder, names: Sequence[str], *, to: str) -> None:
        """Copy files of an artefact folder (local or in an object store) into the run's artifacts below `to`."""
        self._tell("files", folder=folder.uri, names=list(names), to=to)

    def log_folder(self, folder: Folder, *, to: str) -> None:
        """Copy all files of a small artefact folder (a report, a bundle) into the run's artifacts below `to`."""
        self.log_files(folder, list(folder.list()), to=to)

    def log_inputs(self, folders: Mapping[str, Folder]) -> None:
        """Record the sealed folders of this run: fingerprints as tags, a collection also as an MLflow data set."""
        self._tell("inputs", folders={name: folder.uri for name, folder in folders.items()})

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

        Returns: what became of it; without a version where the store is away.
        """
        offer = {"folder": bundle.uri, "name": name, "metric": metric, "value": value, "measured_on": measured_on}
        done = self._tell("bundle", **offer)
        if done is None:
            said = "MLflow is away: it is registered as soon as MLflow can be told"
            return Registration(name=name, version="", is_champion=False, reason=said)
        return done

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run, and tell MLflow what it could not be told until now. A later `open_run` with the same key
        opens it again.

        A store that is away is waited for, `WAIT` seconds in all, by a run that ended well; what cannot be told then
        is told by the next run in this workspace.

        Args: status: FINISHED, FAILED or KILLED.
        """
        self._tell("finish", status=status)
        if status != "FINISHED" or not self.workspace or not (outbox := Outbox.of(self.workspace)).waiting():
            return
        end = time.monotonic() + _longest_wait()
        while left := self.deliver():
            if time.monotonic() >= end:
                logger.warning(
                    "MLflow at %s is still away: %d notes wait in %s. The next run in this workspace tells them.",
                    *(self.uri, left, outbox.folder),
                )
                return
            logger.warning("MLflow at %s is away: waiting for it, with %d notes to tell", self.uri, left)
            time.sleep(_ASK_EVERY)

    def deliver(self) -> int:
        """Tell MLflow what waits in the workspace, of whatever run. Returns: how much waits for it to come back."""
        return Outbox.of(self.workspace).deliver(self._say) if self.workspace else 0

    def _tell(self, what: str, **args: Any) -> Any:
        """Returns: what the telling returns; None where the store is away and the news is kept."""
        try:
            return self._say(self.run_id, what, args)
        except Exception as error:
            if not self.workspace or not is_away(error):
                raise
            Outbox.of(self.workspace).keep(self.run_id, what, args)
            logger.warning("MLflow at %s is away (%s): it is told later", self.uri, _first_line(error))
            return None

    def _say(self, run_id: str, what: str, args: Mapping[str, Any]) -> Any:
        reach(self.uri)  # within seconds: MLflow itself would try for minutes
        return telling.KINDS[what](client_of(self.uri), run_id, **args)


def open_run(
    uri: str,
    *,
    experiment: str,
    key: str,
    name: str | None = None,
    tags: Mapping[str, str] | None = None,
    workspace: Folder | None = None,
) -> Tracker:
    """Open the run of this work: the one begun earlier under the same `key`, else a new one.

    Everything a run needs is tried here, at the start: the store is reached, the run is written and an artifact is
    stored, so that hours of training do not end in a store that cannot be written.

    Args:
        uri: from `store_uri`.
        key: names the work, say the digest of its config and workspace; a resumed pipeline goes on in the same run.
        workspace: where news is kept while the store is away; what waits there of earlier runs is told now.

    Raises: ValueError if the store or its artifact folder cannot be reached or written, or $`WAIT` is no time.
    """
    _longest_wait()
    reach(uri)
    with explained(uri):
        make(uri)
        client = client_of(uri)
        found = client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else _new_experiment(client, experiment, uri)
        runs = client.search_runs([number], filter_string=f"tags.key = '{key}'", max_results=1)
        if runs:
            run_id = runs[0].info.run_id
        else:
            run_id = client.create_run(number, run_name=name, tags={**(tags or {}), "key": key}).info.run_id
        client.log_dict(run_id, {"key": key, "tags": dict(tags or {})}, "config/run.json")
    logger.info("MLflow: run %s of experiment '%s' at %s", run_id, experiment, uri)
    tracker = Tracker(uri, run_id, workspace.uri if workspace is not None else "")
    tracker.deliver()
    with explained(uri):  # behind what was just told, which may be how this run ended the last time
        client.update_run(run_id, status="RUNNING")
    return tracker


def _new_experiment(client: MlflowClient, experiment: str, uri: str) -> str:
    """Its artifacts lie beside a SQLite file; a server knows its own place."""
    path = sqlite_path(uri)
    # The tag opens MLflow's page on training runs; its default view is for language models.
    kind = {"mlflow.experimentKind": "custom_model_development"}
    return client.create_experiment(experiment, str(path.parent / ARTIFACTS) if path else None, tags=kind)


def _longest_wait() -> float:
    return seconds_told(WAIT, "120")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300]
