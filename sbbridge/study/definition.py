"""What a study is made of, as data: presets, the searched space, the ablation's design. Loads neither torch nor Ray."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

When: TypeAlias = Mapping[str, tuple[Any, ...]]
"""{path: levels}: holds where every path has one of its levels."""


@dataclass(frozen=True)
class Factor:
    """Something that is varied; its path is the name of Optuna's parameter.

    Attributes:
        path: in the configuration; or one of two names of what is chosen among the numbers that a training was
            evaluated to ("nfe", "sampler"); or, in an ablation, "path": whether there is a path of its own.
        label: for people.
        values: the levels, in order.
        neighbours: in an ablation, use the centre's level and this many of its nearest instead of all; 0 is all.
        only_if: the factor does nothing elsewhere, and is not varied there; one of these has to hold, none is always.
        multiple_of: levels are multiples of the value at this path, rounded up.
        brings: {level: what else is then changed}, so that a way comes with the options that it needs.
    """

    path: str
    label: str
    values: tuple[Any, ...]
    neighbours: int = 0
    only_if: tuple[When, ...] = ()
    multiple_of: str | None = None
    brings: Mapping[Any, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def configured(self) -> bool:
        """Whether its path is one of the configuration."""
        return "." in self.path

    def levels(self, centre: Any) -> tuple[Any, ...]:
        """The ablation's levels around the centre's, in order; all of them where the centre has none."""
        values = self.values if centre is None or centre in self.values else (*self.values, centre)
        if not self.neighbours or centre is None:
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
        matched: its training takes as many network evaluations as the centre's, simulation counted; that of a path
            with its denoiser's.
        family: of methods, among whose arms the best is chosen on validation.
        table: where it is shown, if not with all arms.
        denoiser: it is the training that the denoiser of the configuration so changed comes from, with other samplers.
        of_preset: what it changes is the preset's own configuration, wherever the centre stands.
        own_path: its configuration is the denoiser of a path that is made of these changes of LDSB's defaults.
    """

    name: str
    overrides: Mapping[str, Any]
    matched: bool = False
    family: str | None = None
    table: str | None = None
    denoiser: bool = False
    of_preset: bool = False
    own_path: Mapping[str, Any] | None = None


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
        grid: two or three of the factors, crossed in full.
        arms: rivals.
        points: proposals that the search asks first, after the preset's own; levels that they leave open are the
            preset's.
        finalists: numbers of network calls; the search's best at no more than each runs again in the ablation.
        own_path: what a path of its own is made of, where the search chooses whether there is one (`method.kind` =
            ldsb): changes of LDSB's defaults, whose denoiser is the configuration without it.
        centre: where the ablation stands: the search's winner, or this preset's own base.
        centre_nfe: the winner is the best validation quality at no more calls than this.
        through_train: how many of the ablation's runs go through the `train` launcher when `--launcher` is auto.
        datasets: those the preset is made for; the first is the default.
        by_dataset: further overrides, by data set.
        together: one study spans all the data sets when none is named; no search then.
        centre_name, centre_family, centre_table: the centre among the arms.
    """

    help: str
    base: Mapping[str, Any]
    trials: int
    seeds: int
    space: tuple[Factor, ...]
    factors: tuple[Factor, ...]
    grid: tuple[str, ...] = ()
    arms: tuple[Arm, ...] = ()
    points: tuple[Mapping[str, Any], ...] = ()
    finalists: tuple[int, ...] = ()
    own_path: Mapping[str, Any] | None = None
    centre: Literal["search", "preset"] = "search"
    centre_nfe: int = 10
    through_train: int = 0
    datasets: tuple[str, ...] = ("digits",)
    by_dataset: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    together: bool = False
    centre_name: str | None = None
    centre_family: str | None = None
    centre_table: str | None = None


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
OBJECTIVES: Mapping[str, str] = {
    "quality": "log_validation_quality", "nfe": "nfe", "cost": "log_training_evaluations",
}  # fmt: skip
"""What a search can minimise: the names on the command line, and those of what a trial reports."""
BEST_PATH = "best"
"""The level of the factor "path" that is the path of the search's best trial which has one."""
SEARCH_ALGORITHMS = ("tpe", "nsga2", "gp", "qmc", "random")
SCHEDULERS = ("none", "asha")
