"""What a study is made of, as data: presets, the searched space, the ablation's design. Loads neither torch nor Ray."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args


@dataclass(frozen=True)
class Factor:
    """Something that is varied.

    Attributes:
        path: in the configuration, or "nfe".
        label: for people.
        values: the levels, in order.
        neighbours: in an ablation, use the centre's level and this many of its nearest instead of all; 0 is all.
        only_if: (path, value): the factor does nothing elsewhere, and is not varied there.
    """

    path: str
    label: str
    values: tuple[Any, ...]
    neighbours: int = 0
    only_if: tuple[str, Any] | None = None

    def levels(self, centre: Any) -> tuple[Any, ...]:
        """The ablation's levels around the centre's, in order."""
        values = self.values if centre in self.values else (*self.values, centre)
        if not self.neighbours:
            return values
        ordered = sorted(values)
        at = ordered.index(centre)
        first = max(0, min(at - self.neighbours // 2, len(ordered) - self.neighbours - 1))
        return tuple(ordered[first : first + self.neighbours + 1])


@dataclass(frozen=True)
class Arm:
    """A rival in the ablation's table, outside its factors.

    Attributes:
        name: for people.
        overrides: what it changes in the centre's configuration.
        matched: its training takes as many network evaluations as the centre's, simulation counted.
        family: of methods, among whose arms the best is chosen on validation.
        table: where it is shown, if not with all arms.
        denoiser: it is the training that the denoiser of the configuration so changed comes from, with other samplers.
    """

    name: str
    overrides: Mapping[str, Any]
    matched: bool = False
    family: str | None = None
    table: str | None = None
    denoiser: bool = False


@dataclass(frozen=True)
class Preset:
    """A size of a study.

    Attributes:
        help: one line.
        base: overrides of the default configuration.
        trials: completed search trials wanted.
        seeds: seeds of every cell of the ablation.
        space: what the search varies.
        factors: what the ablation varies, one at a time.
        grid: two of the factors, crossed in full.
        arms: rivals.
        centre: where the ablation stands: the search's winner, or this preset's own base.
        centre_nfe: the winner is the best validation quality at no more calls than this.
        through_train: how many of the ablation's runs go through the `train` launcher when `--launcher` is auto.
        datasets: those the preset is made for; the first is the default.
        by_dataset: further overrides, by data set.
        together: one study spans all the data sets when none is named; no search then.
        centre_name, centre_family, centre_table: the centre among the arms.
        estimate_seconds: of one training on one core, for `--dry-run`.
    """

    help: str
    base: Mapping[str, Any]
    trials: int
    seeds: int
    space: tuple[Factor, ...]
    factors: tuple[Factor, ...]
    grid: tuple[str, str] | None = None
    arms: tuple[Arm, ...] = ()
    centre: Literal["search", "preset"] = "search"
    centre_nfe: int = 10
    through_train: int = 0
    datasets: tuple[str, ...] = ("digits",)
    by_dataset: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    together: bool = False
    centre_name: str | None = None
    centre_family: str | None = None
    centre_table: str | None = None
    estimate_seconds: float = 20.0


@dataclass(frozen=True)
class Definition:
    """A study: its name, what it asks, and its presets."""

    name: str
    question: str
    presets: Mapping[str, Preset]
    baseline: Mapping[str, Any] = field(default_factory=dict)
    """The cell that the others are compared with, pair by pair."""


Dataset: TypeAlias = Literal[
    "digits", "photos", "cifar10", "celeba", "celeba_hq", "ffhq_latent", "image_folder", "gaussian64", "mixture2",
    "mixture16", "double_well", "checkerboard", "eight_gaussians", "moons", "swiss_roll",
]  # fmt: skip
DATASETS: tuple[str, ...] = get_args(Dataset)
SEARCH_ALGORITHMS = ("tpe", "nsga2", "gp", "qmc", "random")
SCHEDULERS = ("none", "asha")
