"""Named, complete settings of a pipeline. A flag changes one setting of the chosen preset."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from ray_jobs.runtime.inputs import must_be_at_least
from ray_jobs.runtime.parallel.limits import Limits
from retrieval.data.demo.settings import DemoConfig, SceneConfig
from retrieval.data.settings import Layout, Split, SplitConfig
from retrieval.geometry.settings import FeatureConfig, ReconstructConfig
from retrieval.grouping.settings import GroupingConfig
from retrieval.images.settings import PrepareConfig
from retrieval.models.settings import Device, ModelConfig
from retrieval.search.settings import ExpansionConfig, IndexConfig
from retrieval.training.settings import TrainConfig, TupleTrainConfig, WhitenConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineConfig:
    """From a folder of photographs to a search service: what both roads have in common."""

    source: str = ""
    """Folder or manifest of photographs, a path or URI that every node sees; empty: draw the demo's own."""
    layout: Layout = "auto"
    """How the source is laid out: celeba, lfw, folder, manifest; auto finds out."""
    workspace: str = "workspace"
    """Folder or URI for all that is made. A step that lies there finished, from the same inputs, is not done again."""
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    """What is done to each photograph."""
    split: SplitConfig = field(default_factory=SplitConfig)
    """How identities are divided into training, validation and test."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    index: IndexConfig = field(default_factory=IndexConfig)
    """The index that is evaluated and served."""
    served_splits: tuple[Split, ...] = ("train", "val", "query", "gallery")
    """Which photographs the query service searches."""
    device: Device = "auto"
    """auto: GPUs if the cluster has any; cpu; cuda."""
    tracking_uri: str = ""
    """MLflow store; empty: MLFLOW_TRACKING_URI, else SQLite in the workspace."""
    model_name: str = "faces"
    """Name in MLflow's registry, and of the experiment."""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)
    """When to stop trying: holds for every step."""

    def __post_init__(self) -> None:
        if not self.served_splits:
            raise ValueError("served_splits is empty, expected one or more of train, val, query, gallery.")


@dataclass(frozen=True, kw_only=True, slots=True)
class FacesConfig(PipelineConfig):
    """Find the same person with a network that is taken as it is. No label is needed: people are found by `group`."""

    grouping: GroupingConfig = field(default_factory=GroupingConfig)
    """How photos of one person are put together."""
    demo: DemoConfig = field(default_factory=DemoConfig)
    """The drawn faces, where no source is given."""

    def __post_init__(self) -> None:
        PipelineConfig.__post_init__(self)  # `super()` does not find its class where it has slots
        if not self.model.is_frozen:
            raise ValueError(
                f"model.backbone is {self.model.backbone}, which must be trained for faces first: "
                f"python -m ray_jobs.pipeline faces-train. Here it is onnx:NAME or onnx:FILE, a network that is ready."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedConfig(PipelineConfig):
    """What the roads that train have in common."""

    weights: str = "imagenet"
    """Starting point: imagenet (torchvision, or timm, downloads it), a .pth or .safetensors file, a bundle's folder,
    models:/name@alias in MLflow, or none (random)."""
    num_workers: int = 1
    """Training processes (DDP). The other steps use all that the cluster has."""

    def __post_init__(self) -> None:
        PipelineConfig.__post_init__(self)
        must_be_at_least(0, self, "num_workers")


@dataclass(frozen=True, kw_only=True, slots=True)
class FacesTrainConfig(TrainedConfig):
    """Find the same person: trained on triplets of labelled photos."""

    train: TrainConfig = field(default_factory=TrainConfig)
    """How it is fine-tuned."""
    demo: DemoConfig = field(default_factory=DemoConfig)
    """The drawn faces, where no source is given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LandmarksConfig(TrainedConfig):
    """Find the same place: trained on tuples of photos that show one place."""

    mining: Literal["structure", "clusters"] = "structure"
    """Where the tuples come from. structure: structure-from-motion finds them among unordered photos. clusters: a label
    is taken for a place."""
    reconstruct: ReconstructConfig = field(default_factory=ReconstructConfig)
    """How tuples are found."""
    siamese: TupleTrainConfig = field(default_factory=TupleTrainConfig)
    """How it is fine-tuned."""
    whiten: WhitenConfig = field(default_factory=WhitenConfig)
    """The whitening that is learned on the trained model."""
    whitened: bool = True
    """Serve the model with whitening. It needs matching pairs of many places: of a few it learns those."""
    scales: tuple[float, ...] = (1.0,)
    """The scales at which the served model describes a photo."""
    expansion: ExpansionConfig = field(default_factory=ExpansionConfig)
    """The query expansion that is scored."""
    rerank: int | None = None
    """Results put in order by geometry, and scored; 0: none; None: 50 where that goes by aliked, otherwise none."""
    rerank_by: Literal["auto", "sift", "aliked"] = "auto"
    """The local features for that. aliked: a network that learned where to look, whose weights must be at hand (python
    -m ray_jobs.weights --fetch aliked-n16); what it finds is kept, and the service puts results in order by it. auto:
    aliked where its weights are at hand, otherwise sift."""
    ablate: bool = True
    """Score each step alone and together. Costs several embeddings of the collection."""
    scenes: SceneConfig = field(default_factory=SceneConfig)
    """The drawn places, where no source is given."""

    def __post_init__(self) -> None:
        TrainedConfig.__post_init__(self)
        if self.rerank is not None:
            must_be_at_least(0, self, "rerank")
        dataclasses.replace(self.model, scales=self.scales)  # refuses scales that no model may have


_DRAWN = DemoConfig(num_identities=120, images_per_identity=8, flaws=True)
# The best network for faces that is free to use, with the detector and the crop that it was trained with. Nobody is
# trained here, so everybody is asked for (test_fraction 1), and who is alone on one photo is searched all the same.
FACES = FacesConfig(
    model=ModelConfig(backbone="onnx:sface", flip=True),
    prepare=PrepareConfig(crop="aligned", detector="yunet", size=112, margin=0.0),
    split=SplitConfig(test_fraction=1.0, val_fraction=0.0, keep_singles=True),
    served_splits=("query", "gallery"),
    model_name="people",
)
# The same on drawn faces. The demo of training is DEMO, which draws the same set.
DEMO_PEOPLE = dataclasses.replace(
    FACES,
    workspace="workspace/demo-people",
    demo=_DRAWN,
    model_name="people-demo",
)
# Layer features.13 of MobileNet-V2, a 5 x 5 grid and the circle loss were the best of what was tried: see
# docs/explanation/face-model.md and docs/explanation/triplets.md. Faces turned upright: 491 photos of LFW, recall@1
# 0.593 > 0.667 and mAP 0.514 > 0.655 against Haar's squares with a margin of 0.15.
FACES_TRAIN = FacesTrainConfig(
    prepare=PrepareConfig(crop="aligned", detector="yunet", margin=0.0),
    model=ModelConfig(cut="features.13", pooling="grid", grid=5, flip=True, image_size=160),
    train=TrainConfig(loss="circle"),
)
# What the source work describes: the whole trunk, one mean over space, a fresh head.
FACES_PUBLISHED = FacesTrainConfig(
    prepare=PrepareConfig(detector="haar"),
    model=ModelConfig(image_size=218),
    train=TrainConfig(whiten_head=False, views=0),
)
# No weights are downloaded, so the trunk is random: only the head, whitened on its features, is worth training.
DEMO = FacesTrainConfig(
    workspace="workspace/demo",
    prepare=PrepareConfig(detector="haar"),
    weights="none",
    model=ModelConfig(cut="features.13", pooling="grid", grid=3, image_size=112),
    train=TrainConfig(epochs=8, views=3, unfreeze_layers=0, learning_rate=1e-3, groups_per_batch=2),
    demo=_DRAWN,
    served_splits=("train", "val", "gallery"),
    model_name="faces-demo",
)
MULTI_SCALE = (1.0, math.sqrt(1 / 2), 0.5)
# The published recipe, with long sides for a set of web photos; see docs/explanation/landmarks.md.
LANDMARKS_PUBLISHED = LandmarksConfig(
    prepare=PrepareConfig(crop="fit", size=1024, quality=92),
    split=SplitConfig(keep_singles=True, val_fraction=0.0),
    model=ModelConfig(backbone="resnet50", pooling="gem", head="none", image_size=1024, keep_aspect=True),
    siamese=TupleTrainConfig(epochs=30),
    scales=MULTI_SCALE,
    expansion=ExpansionConfig(num=10),
    rerank=0,
    model_name="landmarks",
)
# With results in order of what fits one plane: mAP of hard pairs 0.346 > 0.511; see docs/explanation/re-ranking.md.
# Without expansion, the one step that lost beyond chance: mAP by 10 neighbours 0.857 > 0.772.
LANDMARKS = dataclasses.replace(LANDMARKS_PUBLISHED, rerank=None, expansion=ExpansionConfig())
# As `demo`: nothing is downloaded, so the trunk is random and only its whitening, a linear head, is worth training.
DEMO_LANDMARKS = LandmarksConfig(
    workspace="workspace/demo-landmarks",
    weights="none",
    prepare=PrepareConfig(crop="fit", size=320, quality=92),
    split=SplitConfig(keep_singles=True, test_fraction=0.3, val_fraction=0.0),
    model=ModelConfig(
        cut="features.6", pooling="gem", head="linear", embedding_dim=32, image_size=224, keep_aspect=True
    ),
    siamese=TupleTrainConfig(epochs=5, learning_rate=1e-3, image_size=224, unfreeze_layers=0),
    whiten=WhitenConfig(shrinkage=0.1),
    scales=MULTI_SCALE,
    rerank=20,
    rerank_by="sift",
    ablate=False,
    model_name="landmarks-demo",
)

AnyConfig = FacesConfig | FacesTrainConfig | LandmarksConfig

PRESETS: dict[str, tuple[str, AnyConfig]] = {
    "faces": ("Find the same person, labelled or not, with the best free network there is. Nothing is trained.", FACES),
    "faces-train": ("Train a network on labelled faces. The recipe that measured best.", FACES_TRAIN),
    "faces-published": (
        "Train on labelled faces by the published recipe: whole trunk, average pooling.",
        FACES_PUBLISHED,
    ),
    "landmarks": ("Find the same place. Trained on what reconstruction finds, without labels.", LANDMARKS),
    "landmarks-published": (
        "The same by the published recipe alone: queries expanded, nothing put in order.",
        LANDMARKS_PUBLISHED,
    ),
    "demo-landmarks": ("The whole road on drawn places, with nothing downloaded.", DEMO_LANDMARKS),
    "demo-people": ("Find the same person on drawn faces, with the network of `faces`.", DEMO_PEOPLE),
    "demo": ("The whole road of `faces-train` on drawn faces, with nothing downloaded.", DEMO),
}


LEARNED = FeatureConfig(extractor="aliked", weights="aliked-n16", max_features=1024, max_side=480)
"""Local features that results are put in order by, where they are learned ones: as measured."""
RERANKED = 50
"""Results of a query that are put in order by them, unless another number is given."""


def describes(cfg: LandmarksConfig) -> bool:
    """Whether learned local features are taken of all photos and kept."""
    return bool(cfg.rerank) and cfg.rerank_by == "aliked"


def variants(cfg: LandmarksConfig) -> list[tuple[str, ...]]:
    """The systems that are compared, each by what it is put together from: ("after", "ms", "Lw") is the trained model,
    at several scales (ms), with learned whitening (Lw) on top. The last is the one that is served.

    A system's shorter beginnings are in the list as well: each is made from the one before it.
    """
    scales = ("ms",) if len(cfg.scales) > 1 else ()
    whitening = ("Lw",) if cfg.whitened and cfg.model.head != "linear" else ()  # a linear head is whitening, trained
    served = ("after", *scales, *whitening)
    if not cfg.ablate:
        return [("before",), *(served[:length] for length in range(1, len(served) + 1))]
    steps = [(*some, *more) for some in dict.fromkeys([(), scales]) for more in ((), ("Lw",))]
    found = [(base, *some) for base in ("before", "after") for some in steps]
    return [one for one in found if one != served] + [served]


def num_steps(cfg: AnyConfig) -> int:
    """How many steps the road of these settings has, where none does the same twice."""
    if isinstance(cfg, FacesConfig):
        return 6
    if isinstance(cfg, FacesTrainConfig):
        return 8 + (cfg.served_splits != ("gallery",))
    made = sum(1 + (parts[-1] in ("ms", "Lw")) for parts in variants(cfg))  # what is put on it, and its embeddings
    return 6 + (cfg.model.head == "linear") + made + describes(cfg)
