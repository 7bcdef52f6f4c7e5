"""Settings of both training recipes and of whitening. No heavy library is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from retrieval.images.settings import AugmentConfig
from retrieval.models.settings import Precision
from retrieval.training.losses import LABEL_LOSSES, LOSSES

if TYPE_CHECKING:
    TupleLoss = LabelLoss = str
else:
    LabelLoss = Literal["triplet", *LABEL_LOSSES]
    TupleLoss = Literal[*LOSSES]  # read at runtime by whoever makes flags of these settings: --help lists the names

Strategy = Literal["random", "semi-hard", "hardest"]

STRATEGIES: tuple[Strategy, ...] = ("random", "semi-hard", "hardest")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How to fine-tune."""

    epochs: int = 8
    """In each, every identity is once the head of a group."""
    groups_per_batch: int = 4
    """Groups a step, over all workers together. A group is an identity and those it is most confused with."""
    companions: int = 3
    """Identities called into each group, drawn from the 12 nearest by class centre."""
    images_per_identity: int = 4
    """Images drawn of each identity of a group, and to find out whom it is near to; fewer where it has fewer."""
    learning_rate: float = 4e-4
    """Peak of a one-cycle schedule: linear rise over the first 15 % of steps, cosine fall to 0."""
    weight_decay: float = 1e-4
    """AdamW's decoupled weight decay."""
    unfreeze_layers: int = 10
    """Layers left trainable at the trunk's end (convolutions, norms, activations, pools; each call counts). -1: all."""
    loss: LabelLoss = "triplet"
    """What a batch is trained by. triplet: the positive nearer than the negative. The others weigh all pairs of the
    batch, or (arcface) compare each photo with a proxy of every person."""
    margin: float = 0.2
    """triplet: margin on squared L2 distances of unit vectors."""
    negatives: Strategy = "semi-hard"
    """triplet: which images of a batch are negatives: random, semi-hard (the nearest that is farther than the positive)
    or hardest (the nearest). With random the groups are random too, and nothing is mined, whatever the loss."""
    warmup_epochs: int = 2
    """Epochs in which `hardest` is held back to semi-hard."""
    whiten_head: bool = True
    """Start the head from whitening learned on the frozen features, rather than from noise."""
    views: int = 6
    """Augmented views of each image, drawn once and cached behind the frozen layers. 0: a fresh view at every use."""
    pool_size: int = 0
    """Images mined from: a fixed seeded draw of whole identities. 0: all."""
    seed: int = 0
    """Decides all draws."""
    precision: Precision = "auto"
    """auto: bfloat16 where the hardware has it and it leaves embeddings as they are."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How training images are changed."""

    def __post_init__(self) -> None:
        for name in ("epochs", "groups_per_batch", "companions", "images_per_identity"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        for name in ("views", "pool_size", "warmup_epochs", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        for name in ("learning_rate", "margin"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        if self.loss not in ("triplet", *LABEL_LOSSES):
            raise ValueError(f"Unknown loss '{self.loss}'. Choose one of: triplet, {', '.join(LABEL_LOSSES)}.")
        if self.negatives not in STRATEGIES:
            raise ValueError(f"Unknown negatives '{self.negatives}'. Choose one of: {', '.join(STRATEGIES)}.")


Negatives = Literal["N1", "N2"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TupleTrainConfig:
    """How to fine-tune on tuples. The defaults are the published ones (arXiv:1711.02512, sec. 5.1)."""

    epochs: int = 100
    """Each draws queries and a pool anew."""
    loss: TupleLoss = "contrastive"
    """contrastive: matching pairs together, others `margin` apart. triplet: the positive nearer than each negative."""
    margin: float = 0.7
    """contrastive: distance; 0.75 suits VGG16, 0.85 ResNet-101. triplet: difference of squared distances, say 0.2."""
    learning_rate: float = 1e-6
    """Adam's; GeM's shared p has 10 times, a p for each channel 100 times as much."""
    weight_decay: float = 1e-6
    """Adam's L2 penalty; not on GeM's p."""
    decay: float = 0.01
    """The rate is multiplied by exp(-decay) after each epoch."""
    tuples_per_step: int = 5
    """Tuples whose gradients add up to one step, over all workers together."""
    num_negatives: int = 5
    """Negatives of a tuple."""
    negatives: Negatives = "N2"
    """N1: the nearest images of other clusters. N2: of different clusters, one each."""
    positives: Positives = "m3"
    """m1: nearest by descriptor. m2: most shared points. m3: drawn among those that share enough, at like scale."""
    min_shared: float = 0.2
    """m3: shared points, as a part of the most that the query shares with any image."""
    max_scale_change: float = 1.5
    """m3: how many times larger or smaller the place may appear."""
    queries_per_epoch: int = 2000
    """Queries of an epoch, drawn; all where there are fewer."""
    pool_size: int = 20_000
    """Images that an epoch's negatives are looked for in, drawn; all where there are fewer."""
    image_size: int = 362
    """Longer side of a training image, pixels; the aspect is kept."""
    unfreeze_layers: int = -1
    """Layers left trainable at the trunk's end; -1: all. BatchNorm statistics never change."""
    val_distractors: int = 500
    """Training images put among those of val when it is ranked, drawn."""
    seed: int = 0
    """Decides all draws."""
    precision: Precision = "fp32"
    """fp32 is what was published. bf16: its gradient is off by a tenth (ResNet-50) to a third (MobileNet-V2)."""

    def __post_init__(self) -> None:
        for name in ("epochs", "tuples_per_step", "num_negatives", "queries_per_epoch", "pool_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        for name in ("learning_rate", "margin", "max_scale_change"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        for name in ("weight_decay", "decay", "val_distractors", "min_shared"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        for name, known in (("loss", LOSSES), ("positives", ("m1", "m2", "m3"))):
            if getattr(self, name) not in known:
                raise ValueError(f"Unknown {name} '{getattr(self, name)}'. Choose one of: {', '.join(known)}.")
        if self.image_size < 32:
            raise ValueError(f"image_size must be 32 or more, got {self.image_size}.")


Positives = Literal["m1", "m2", "m3"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WhitenConfig:
    """What whitening is learned, and how many dimensions are kept."""

    method: Literal["learned", "pca"] = "learned"
    """learned: from matching pairs, which of them differ in what ways (Lw). pca: from all descriptors alone."""
    dim: int = 0
    """Dimensions kept, those of most variance; 0: all."""
    shrinkage: float = 0.0
    """learned: how far the pairs' covariance is drawn to a multiple of the identity, 0 to 1. With fewer pairs than
    dimensions it is not known in all directions, and some is needed."""
    power: float = 1.0
    """1 whitens wholly; 0.5 takes the square root of each scaling, which trusts the smallest directions less."""
    max_pairs: int = 100_000
    """learned: pairs drawn from the tuples' queries and their candidates, at most."""
    seed: int = 0
    """Draws the pairs where there are more."""

    def __post_init__(self) -> None:
        if self.method not in ("learned", "pca"):
            raise ValueError(f"Unknown whitening method '{self.method}'. Choose learned or pca.")
        if self.dim < 0 or self.max_pairs < 1:
            raise ValueError(f"dim is {self.dim} and max_pairs {self.max_pairs}, expected 0 or more, and 1 or more.")
        if not 0 <= self.shrinkage <= 1 or not 0 < self.power <= 1:
            raise ValueError(
                f"shrinkage is {self.shrinkage} and power {self.power}, expected 0 to 1, and above 0 up to 1."
            )
