"""A process of the cluster logs into the run that the driver opened."""

from __future__ import annotations

import os
from pathlib import Path

import ray
from mlflow import MlflowClient

from ray_jobs.runtime.tracking.runs import Tracker, open_run
from ray_jobs.runtime.tracking.store import store_uri


def test_a_worker_process_logs_into_the_drivers_run(tmp_path: Path, ray_local: None) -> None:
    store = store_uri(None, tmp_path)
    tracker = open_run(store, experiment="worker", key="k")

    @ray.remote
    def work(handle: Tracker) -> int:
        handle.log_metrics({"val/mAP": 0.7}, step=4)
        return os.getpid()

    assert ray.get(work.remote(tracker)) != os.getpid()
    assert [(m.step, m.value) for m in MlflowClient(store).get_metric_history(tracker.run_id, "val/mAP")] == [(4, 0.7)]
