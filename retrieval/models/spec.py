"""What a bundle says of itself, read without PyTorch: its spec (model.json), and how photos are prepared for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from retrieval.artifacts import hashing
from retrieval.artifacts.calibration import KnownThreshold
from retrieval.artifacts.collection import DETECTOR
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Manifest, read_manifest
from retrieval.images.settings import PrepareConfig, stored_config
from retrieval.models.engines.manifest import NetworkManifest, parse_manifest
from retrieval.models.settings import AdapterKind, ModelConfig, Whitening
from retrieval.models.text.manifest import TEXT_FILE, TOKENIZER_FILE

WEIGHTS_FILE, SPEC_FILE, NETWORK_FILE = "model.safetensors", "model.json", "network.onnx"
ADAPTER_FILE = "adapter.safetensors"
_MORE_FILES = {NETWORK_FILE, ADAPTER_FILE, DETECTOR, TEXT_FILE, TOKENIZER_FILE}
_DECIDES = ("crop", "size", "quality")  # what of a preparation an embedding depends on, where no face is looked for


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """A bundle's model.json: the network, its pixel normalisation, and how a photo is prepared for it."""

    config: ModelConfig
    whitening: Whitening = "none"
    """How the whitening that is applied last was learned (python -m ray_jobs.whiten)."""
    whitening_dim: int = 0
    """Dimensions that whitening keeps; 0 without whitening."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    preparation: Mapping[str, Any] = field(default_factory=dict)
    """The collection's ingest settings (crop, margin, detector): what a query photo must go through as well."""
    network: NetworkManifest | None = None
    """Of a frozen network, what it takes and gives."""
    adapter: AdapterKind = "none"
    """What small map of the finished embedding comes last (python -m ray_jobs.adapt)."""

    def __post_init__(self) -> None:
        if self.whitening not in get_args(Whitening) or (self.whitening == "none") != (self.whitening_dim == 0):
            raise ValueError(
                f"whitening is '{self.whitening}' with {self.whitening_dim} dimensions. It is learned from a trained "
                f"model's embeddings: python -m ray_jobs.whiten."
            )
        if self.adapter not in get_args(AdapterKind):
            raise ValueError(f"Unknown adapter '{self.adapter}'. Choose one of: {', '.join(get_args(AdapterKind))}.")
        assert (self.network is not None) == self.config.is_frozen
        if self.whitening != "none" or self.adapter != "none":
            self.check_may_be_mapped()

    def check_may_be_mapped(self) -> None:
        """Raises: ValueError for a network with a text tower: whitening and adapters are learned on photos, and words
        lie elsewhere in their space, where such a map does what nobody looked at."""
        if self.network is not None and self.network.text is not None:
            raise ValueError(
                f"{self.network.name} has a text tower, and a map learned on photos (whitening, an adapter) would move "
                f"words to where no photo is. Freeze it without [text] in its manifest, then learn the map."
            )

    @property
    def plain(self) -> dict[str, Any]:
        """As it stands in model.json and manifests: what has no part of a newer kind is what it was before."""
        value = hashing.plain(self)
        if self.network is None:
            del value["network"]
        elif self.network.text is None:
            del value["network"]["text"]
        if self.adapter == "none":
            del value["adapter"]
        return value


def load_spec(folder: Folder | Path | str) -> ModelSpec:
    """The spec of a bundle, also of one from when whitening was among the model's settings.

    Raises: ValueError if there is no sealed bundle, or its spec is not ours.
    """
    folder = Folder.of(folder)
    read_manifest(folder, "model")
    value = folder.read_json(SPEC_FILE)
    config = value.pop("config")
    value |= {name: config.pop(name) for name in ("whitening", "whitening_dim") if name in config}
    unknown = set(config) - {f.name for f in dataclasses.fields(ModelConfig)}
    if unknown := sorted(unknown | set(value) - {f.name for f in dataclasses.fields(ModelSpec)}):
        raise ValueError(f"The bundle {folder} has settings this version does not know: {unknown}. Update the project.")
    value |= {name: tuple(value[name]) for name in ("mean", "std")}
    if value.get("network"):
        value["network"] = parse_manifest(value["network"], f"{folder}/{SPEC_FILE}")
    return ModelSpec(config=ModelConfig(**config), **value)


def check_files(folder: Folder | Path | str) -> Manifest:
    """The manifest of a sealed bundle whose weights are those that were sealed.

    Raises: ValueError if there is no sealed bundle, or a file of it was changed.
    """
    folder = Folder.of(folder)
    manifest = read_manifest(folder, "model")
    for name in (WEIGHTS_FILE, *(_MORE_FILES & set(manifest.files))):
        if hashing.hash_file(folder, name) != manifest.files[name]:
            raise ValueError(
                f"{folder}/{name} is not the file that was sealed (its hash differs). Copy the bundle again."
            )
    return manifest


def known_threshold(folder: Folder | Path | str) -> KnownThreshold | None:
    """The cosine from which two photos show the same, as whoever published the network says; None where nobody did.

    With whitening or an adapter there is none either: it is of other numbers.
    """
    spec = load_spec(folder)
    changed = spec.whitening != "none" or spec.adapter != "none"
    value = None if spec.network is None or changed else spec.network.thresholds.get("same")
    return None if value is None else KnownThreshold(threshold=value, source="the network's publisher")


def preparation_of(bundle: Folder) -> PrepareConfig:
    """How the bundle wants a photo prepared.

    Raises: ValueError if it does not say: then it was not made by training on a collection.
    """
    stored = load_spec(bundle).preparation
    if not stored:
        raise ValueError(f"The bundle {bundle} does not say how photos are prepared for it. Train or embed it again.")
    return stored_config(stored)


def benchmark_preparation(spec: ModelSpec, bundle: Folder) -> PrepareConfig:
    """How photos are made ready for a bundle: whole, and no larger than the network takes them.

    At that size exactly: a query is shrunk as much as its whole photo would be, which no later step may undo.

    Raises: ValueError if the bundle was made for squares or faces.
    """
    config, stored = spec.config, dict(spec.preparation)
    if not config.keep_aspect or stored.get("crop", "fit") != "fit":
        raise ValueError(
            f"The bundle {bundle} takes photos with keep_aspect={config.keep_aspect} and "
            f"crop='{stored.get('crop', 'fit')}'; the landmark benchmarks need whole photos in their own shape "
            f"(keep_aspect, crop='fit'). Train one with `python -m ray_jobs.pipeline landmarks`."
        )
    return dataclasses.replace(stored_config({"crop": "fit", **stored}), size=config.image_size)


def check_preparation(collected: Manifest, wanted: PrepareConfig, where: Folder) -> None:
    """Raises: ValueError if a collection of distractors was prepared otherwise than the gallery."""
    there = collected.config.get("prepare", {})
    here = {name: getattr(wanted, name) for name in _DECIDES}
    if odd := [f"{name} {there.get(name)!r}, not {here[name]!r}" for name in _DECIDES if there.get(name) != here[name]]:
        raise ValueError(
            f"The distractors {where} were prepared otherwise than the bundle wants: {'; '.join(odd)}. Name the folder "
            f"of their photos, or ingest them with --crop fit --size {wanted.size} --quality {wanted.quality}."
        )


def check_prepared(network: NetworkManifest, preparation: Mapping[str, Any]) -> None:
    """Raises: ValueError for photos prepared otherwise than a frozen network was trained on: it would run, and err."""
    crop, margin = preparation.get("crop"), preparation.get("margin")
    if network.alignment == "five-points" and crop not in ("aligned", "none"):
        raise ValueError(
            f"{network.name} takes faces aligned by five points, and these photos are prepared with crop '{crop}'. "
            f"Ingest them with crop aligned and margin 0; or with crop none, where they are aligned already."
        )
    if network.alignment == "five-points" and crop == "aligned" and margin != 0:
        raise ValueError(
            f"{network.name} takes aligned faces with no room around them, and these have margin {margin}. Ingest them "
            f"with margin 0."
        )
    if crop == "fit" and network.size:
        raise ValueError(
            f"{network.name} takes squares of {network.size} pixels, and these photos are prepared with crop 'fit', in "
            f"their own shape. Ingest them with crop none."
        )
