"""MLflow's registry: which bundle is the champion, and how one is fetched. See runs.py."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ray_jobs.runtime.tracking.store import client_of, explained, reach
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
_ERA = "era"  # a tag of a model, and of the versions that contend in it: its number, and the version it began with
_SEATED = "seated"  # a tag of a model: the version that one of our runs made champion last
_LOOKS, _BETWEEN_LOOKS = 4, 1.0  # seconds


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
        client = client_of(uri)
        # The era comes before the alias: a run that looks between them finds what to mend.
        era = _begin_era(client, name, client.get_registered_model(name).tags.get(_ERA, ""), str(version))
        _seat(client, name, str(version))
        _seat_best(client, name, era)  # the same, unless a run that ends now beats it, or had just put another back


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


def crown(client: MlflowClient, name: str, version: ModelVersion) -> tuple[bool, str]:
    """Offer `version` as champion, and look again whether the best is champion.

    MLflow cannot set an alias only if it is still what it was: of two runs that end together, both may find themselves
    better than the old champion, and the worse be the last to say so. So each first says, on its version, that it
    contends, and whoever set the alias looks at all contenders again, until the best of them is champion.

    Who contends: all versions that were offered in the present era. An era begins with a champion that was chosen by
    hand, so that no older and better one undoes the choice.

    Returns: whether `version` is the champion now, and why or why not, in words.
    """
    better, reason = compare(version, champion_of(client, name))
    while True:
        era = _present_era(client, name)
        client.set_model_version_tag(name, version.version, _ERA, era)
        best = _seat_best(client, name, era)
        if best is not None and client.get_registered_model(name).tags.get(_ERA, "") == era:
            break  # else one began meanwhile, and this version contends in it
    if str(best.version) == str(version.version):
        return True, reason
    if better:
        reason += f", but version {best.version} ended at the same time: {beats(best.tags, version.tags)[1]}"
    return False, reason


def _seat_best(client: MlflowClient, name: str, era: str) -> ModelVersion | None:
    while True:
        best, champion = _best_of(client, name, era), champion_of(client, name)
        if best is None or (champion is not None and str(champion.version) == str(best.version)):
            return best
        _seat(client, name, str(best.version))


def _seat(client: MlflowClient, name: str, version: str) -> None:
    client.set_registered_model_alias(name, CHAMPION, version)
    client.set_registered_model_tag(name, _SEATED, version)


def _best_of(client: MlflowClient, name: str, era: str) -> ModelVersion | None:
    """The best of an era's contenders: of those that compare with the one it began with."""
    found = [one for one in client.search_model_versions(f"name = '{name}'") if one.tags.get(_ERA) == era]
    first = era.rpartition("/")[2]
    best = None
    for one in sorted(found, key=lambda one: (str(one.version) != first, int(one.version))):
        if best is None or beats(one.tags, best.tags)[0]:
            best = one
    return best


def _present_era(client: MlflowClient, name: str) -> str:
    """The next one, if the champion is not the one that a run seated: somebody moved the alias in MLflow by hand.

    A run that set the alias and did not say so yet looks the same, but not for long.
    """
    looks = 0
    while True:
        model = client.get_registered_model(name)
        era, seated, champion = model.tags.get(_ERA, ""), model.tags.get(_SEATED), model.aliases.get(CHAMPION)
        if champion is None or str(champion) == seated:
            return era
        if seated is None:  # a registry that knew no eras: its champion contends in the first
            client.set_model_version_tag(name, str(champion), _ERA, era)
            return era
        looks += 1
        if looks == _LOOKS:
            break
        time.sleep(_BETWEEN_LOOKS)
    era = _begin_era(client, name, era, str(champion))
    client.set_registered_model_tag(name, _SEATED, str(champion))
    now = client.get_registered_model(name).aliases.get(CHAMPION)
    client.set_model_version_tag(name, str(now), _ERA, era)  # another, if a run set it while we looked
    return era


def _begin_era(client: MlflowClient, name: str, before: str, version: str) -> str:
    """The era after `before`, with this version; of the same name whoever begins it."""
    era = f"{int(before.partition('/')[0] or 0) + 1}/{version}"
    client.set_model_version_tag(name, version, _ERA, era)
    client.set_registered_model_tag(name, _ERA, era)
    return era


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
