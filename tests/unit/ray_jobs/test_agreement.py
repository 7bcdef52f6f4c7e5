"""What the query service counted goes to MLflow: a run for each pair of versions, a point each time it is logged."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from ray_jobs.agreement import AgreementConfig, main
from ray_jobs.runtime.tracking.store import store_uri
from retrieval.artifacts.folder import Folder
from retrieval.search.agreement import Agreement, write_agreement

ONE, OTHER = "0" * 12, "f" * 12


def test_counts_become_a_run_and_a_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="No query service has counted anything"):
        main(AgreementConfig(workspace=str(tmp_path)))
    counts = Agreement(queries=4, same_first=3, overlap=2.0, score_difference=-0.5)
    write_agreement(Folder.of(tmp_path), ONE, OTHER, "a", counts)
    figures = {"queries": 4.0, "same_first": 0.75, "overlap@10": 0.5, "score_difference": -0.125}
    assert main(AgreementConfig(workspace=str(tmp_path))) == {f"{ONE} {OTHER}": figures}
    said = "4 queries, the same first in 75.0%, 50.0% of the first ten in both, best score -0.1250"
    assert f"{OTHER} beside {ONE}: {said}" in capsys.readouterr().out
    write_agreement(Folder.of(tmp_path), ONE, OTHER, "b", counts)
    main(AgreementConfig(workspace=str(tmp_path)))
    client = MlflowClient(store_uri(None, tmp_path))
    (experiment,) = client.search_experiments(filter_string="name = 'agreement'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.data.params["agreement.version"], run.data.params["agreement.candidate"]) == (ONE, OTHER)
    assert run.data.metrics["agreement/same_first"] == 0.75
    points = client.get_metric_history(run.info.run_id, "agreement/queries")
    assert [(point.step, point.value) for point in points] == [(4, 4.0), (8, 8.0)]
