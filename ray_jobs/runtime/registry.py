"""MLflow's registry: which bundle is the champion, and how one is fetched. See runs.py."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ray_jobs.runtime.store import client_of, explained, reach
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import hash_file
from retrieval.artifacts.manifest import read_manifest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def beats(new: Mapping[str, str], old: Mapping[str, str]) -> tuple[bool, str]:
    """Whether `new` is better than `old`, and why in words. Not if they do not compare, and not if they are equal.

    Args:
        new, old: what each was measured by, as text: `metric` (its name), `value` (higher is better) and `measured_on`
            (fingerprint of the data). A value on easy photos says nothing about one on hard photos.

    Example:
        >>> measured = {"metric": "val/mAP", "measured_on": "c0ffee"}
        >>> beats({**measured, "value": "0.61"}, {**measured, "value": "0.6"})
        (True, 'val/mAP 0.6100 beats 0.6000')
    """
    if "value" not in new:
        return False, "it was not validated, so it has no figure to be ranked by; promote it by hand"
    if "value" not in old:
        return False, "it has no recorded metric to beat; promote a version by hand"
    if (old["metric"], old["measured_on"]) != (new["metric"], new["measured_on"]):
        return False, (
            f"it was measured by {old['metric']} on data {old['measured_on'][:12]}, this one by {new['metric']} on "
            f"{new['measured_on'][:12]}; they do not compare, promote one by hand"
        )
    better = float(new["value"]) > float(old["value"])
    verb = "beats" if better else "does not beat"
    return better, f"{new['metric']} {float(new['value']):.4f} {verb} {float(old['value']):.4f}"


CHAMPION = "champion"


@dataclass(frozen=True, kw_only=True, slots=True)
class Registration:
    """What became of a bundle offered to the registry."""

    name: str
    version: str
    is_champion: bool
    """Whether the alias `champion` points at this version now."""
    reason: str
    """Why it does or does not, in words."""


def promote(uri: str, name: str, version: str) -> None:
    """Make `version` of model `name` the champion whatever its metric: the way across a change of validation data."""
    with explained(uri):
        client_of(uri).set_registered_model_alias(name, CHAMPION, version)


def champion_fingerprint(name: str, *, uri: str) -> str:
    """Fingerprint of the bundle that is the champion of model `name`. Args: uri: the tracking store, from `store_uri`.

    Raises: ValueError if the registry has no such model, or it has no champion.
    """
    reach(uri)
    with explained(uri):
        client = client_of(uri)
        names = [model.name for model in client.search_registered_models()]
        champion = champion_of(client, name) if name in names else None
    if champion is None:
        said = f"it has {', '.join(names)}" if names and name not in names else "no version of it was promoted"
        raise ValueError(f"MLflow's registry has no champion of '{name}': {said if names else 'it holds no model'}.")
    return champion.tags.get("fingerprint", "")


def fetch_bundle(model_uri: str, into: str | Path, *, uri: str) -> Path:
    """Download a registered bundle and check its files against its manifest.

    Args:
        model_uri: `models:/<name>@<alias>` or `models:/<name>/<version>`.
        into: local folder; the bundle comes to lie in <into>/<name>-<version>-<fingerprint>. One already there is used.
        uri: the tracking store, from `store_uri`.

    Raises: ValueError if there is no such model, or the download is not the bundle that was registered.
    """
    import mlflow.artifacts

    reach(uri)
    with explained(uri):
        version = _resolve(client_of(uri), model_uri)
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


def version_of(client: MlflowClient, name: str, fingerprint: str) -> ModelVersion | None:
    """The version that already holds this bundle, if any; makes the model's entry on first use."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as missing:
        if missing.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name, description="Image embedding bundles: weights + JSON spec.")
    same = [v for v in client.search_model_versions(f"name = '{name}'") if v.tags.get("fingerprint") == fingerprint]
    return same[0] if same else None


def champion_of(client: MlflowClient, name: str) -> ModelVersion | None:
    number = client.get_registered_model(name).aliases.get(CHAMPION)
    return client.get_model_version(name, str(number)) if number else None


def compare(version: ModelVersion, champion: ModelVersion | None) -> tuple[bool, str]:
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
    changed = [name for name, known in manifest.all_files.items() if hash_file(bundle, name) != known]
    if changed or manifest.fingerprint != fingerprint:
        raise ValueError(
            f"{model_uri} is not the bundle that was registered ({', '.join(changed) or 'another fingerprint'}): "
            f"its stored artifact was changed or damaged. Register the bundle again, or name another version."
        )
