"""Agreement: how far a candidate agreed with the version that answered, as the query service counted it, into MLflow.

    python -m ray_jobs.agreement --workspace W
    python -m ray_jobs.agreement --workspace W --experiment faces --tracking-uri http://TRACKING:5000

A service that was given `candidate=VERSION candidate_share=0.1` scores a tenth of its queries on that version as well,
and keeps counts in the workspace. This prints them, and logs them to one run for each pair of versions. No cluster is
started.
"""

from __future__ import annotations

from dataclasses import dataclass

from ray_jobs.runtime.command import command
from ray_jobs.runtime.news.quiet import set_up_logging
from ray_jobs.runtime.tracking.runs import open_run
from ray_jobs.runtime.tracking.store import store_uri
from retrieval.artifacts.folder import Folder
from retrieval.search.agreement import read_agreements


@dataclass(frozen=True, kw_only=True, slots=True)
class AgreementConfig:
    """Log how far a candidate agrees with what answers."""

    workspace: str
    """Folder or URI that the query service serves."""
    experiment: str = "agreement"
    """MLflow experiment that the runs are put into."""
    tracking_uri: str | None = None
    """MLflow's store. Default: MLFLOW_TRACKING_URI, else the workspace's own."""

    def __post_init__(self) -> None:
        if not self.experiment.strip():
            raise ValueError("experiment is empty, expected the name of an MLflow experiment.")


def main(cfg: AgreementConfig) -> dict[str, dict[str, float]]:
    """Log and print. Returns the figures by '<version> <candidate>'.

    Raises: ValueError if no service counted anything there.
    """
    set_up_logging()
    workspace = Folder.of(cfg.workspace)
    found = {" ".join(pair): counts.shares() for pair, counts in read_agreements(workspace).items() if counts.queries}
    if not found:
        raise ValueError(
            f"No query service has counted anything in {workspace}. Start one with candidate=VERSION, one that "
            f"`python -m ray_jobs.publish --workspace {workspace} --list` prints, and ask it something."
        )
    store = store_uri(cfg.tracking_uri, workspace)
    for pair, figures in found.items():
        version, candidate = pair.split()
        key, name = f"agreement {pair}", f"{candidate} beside {version}"
        run = open_run(store, experiment=cfg.experiment, workspace=workspace, key=key, name=name)
        run.log_params({"version": version, "candidate": candidate}, prefix="agreement")
        # The number of queries is the step: asked again later, the curve goes on.
        run.log_metrics({f"agreement/{name}": value for name, value in figures.items()}, step=int(figures["queries"]))
        run.finish()
        print(f"{candidate} beside {version}: {told(figures)}", flush=True)
    return found


def told(figures: dict[str, float]) -> str:
    """One line."""
    return (
        f"{figures['queries']:.0f} queries, the same first in {figures['same_first']:.1%}, "
        f"{figures['overlap@10']:.1%} of the first ten in both, best score {figures['score_difference']:+.4f}"
    )


if __name__ == "__main__":
    command(AgreementConfig, main, __doc__)
