"""A study resolved: options, preset and configuration, checked before anything runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sbbridge import config
from sbbridge.config import ConfigurationError
from sbbridge.study import design
from sbbridge.study.definition import Definition, Factor, Preset

ALL = "all"
WATCHED = {"evaluation.curve": 8}
"""What a scheduler sees of a training, unless the user says otherwise."""


@dataclass(frozen=True)
class Options:
    """What the command line said, checked.

    Attributes:
        dataset: its name, or "all" where the preset spans several.
        output: the study's folder.
        storage: where records, checkpoints and artefacts go; the output, or a URI.
        others are the command line's, under their names.
    """

    dataset: str
    preset: str
    output: Path
    storage: str
    trials: int
    seeds: int
    assignments: Mapping[str, Any]
    data_root: str | None = None
    address: str = "local"
    launcher: str = "auto"
    num_workers: int = 1
    min_workers: int | None = None
    use_gpu: bool = False
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    max_concurrent: int | None = None
    trial_timeout: float | None = None
    patience: int | None = None
    search_algorithm: str = "tpe"
    scheduler: str = "none"
    optuna_storage: str | None = None
    skip_bad: bool = False


@dataclass
class Plan:
    """A study resolved: what it will be, before anything runs."""

    definition: Definition
    preset: Preset
    options: Options
    bases: dict[str, dict[str, Any]]
    type_: Any
    left_out: tuple[str, ...] = ()
    """Rivals that what the user has set, or their data, makes impossible, and why."""

    @property
    def base(self) -> dict[str, Any]:
        """The configuration of the only data set, or of the first."""
        return next(iter(self.bases.values()))

    @property
    def evaluations(self) -> int:
        """Network evaluations that a training of the base takes."""
        parsed = config.parse(self.type_, self.base)
        return int(parsed.training.budget or parsed.method.cost(parsed.training.batch_size))

    @property
    def trainings(self) -> tuple[int, int]:
        """How many the search and the ablation ask for (arms included)."""
        cells = len(design.ablation_cells(self.preset, self.base)) + len(self.preset.arms)
        return self.options.trials, cells * self.options.seeds * len(self.bases)


    @property
    def denoisers(self) -> list[tuple[dict[str, Any], int, str]]:
        """(configuration, seed, phase) of what paths are fitted for; an arm of its own is of the ablation."""
        seeds = [*range(self.options.seeds), *([design.SEARCH_SEED] if self.options.trials else [])]
        bases = list(self.bases.values())
        trees = [tree for base in bases for tree in design.denoiser_trees(self.type_, self.preset, base)]
        arms = {
            config.digest(design.arm_tree(self.type_, arm, base, None))
            for base in bases for arm in self.preset.arms if arm.denoiser
        }  # fmt: skip
        return [
            (tree, seed, "ablation" if config.digest(tree) in arms and seed != design.SEARCH_SEED else "denoiser")
            for tree in trees for seed in seeds
        ]


def make_plan(definition: Definition, options: Options) -> Plan:
    """Resolves and checks everything that needs no Ray.

    Raises:
        ConfigurationError: naming the field and what is allowed.
    """
    from sbbridge.study.feasible import check_feasible
    from sbbridge.study.trial import TrialConfig

    if "dataset" in options.assignments:
        raise ConfigurationError("--set dataset: use --dataset, which also chooses how results are judged")
    preset = definition.presets[options.preset]
    names = preset.datasets if options.dataset == ALL else (options.dataset,)
    assignments = {**(WATCHED if options.scheduler == "asha" else {}), **options.assignments}
    bases = {name: _base(TrialConfig, preset, name, assignments) for name in names}
    if options.scheduler == "asha":
        _check_watched(TrialConfig, definition.name, bases)
    if options.trial_timeout is not None and options.trial_timeout <= 0:
        raise ConfigurationError(f"--trial-timeout must be > 0, got {options.trial_timeout}")
    preset = _without_fixed(preset, next(iter(bases.values())), options.assignments)
    rivals, left_out = {arm.name for arm in preset.arms}, dict[str, str]()
    for base in bases.values():
        design.check_preset(TrialConfig, preset, base)
        for name, tree in variants(TrialConfig, preset, base):
            parsed = config.parse(TrialConfig, tree)
            _check_budget(parsed, name)
            try:
                check_feasible(parsed, name)
            except ConfigurationError as error:
                # what the user has set, data included, may leave no room for a rival, and is no mistake for it
                if name not in rivals or not (options.assignments or options.dataset not in preset.datasets):
                    raise
                left_out[name] = str(error)
    preset = replace(preset, arms=tuple(arm for arm in preset.arms if arm.name not in left_out))
    if options.trials and not preset.space:
        raise ConfigurationError(f"--trials {options.trials}: preset {options.preset} has nothing to search")
    return Plan(definition, preset, options, bases, TrialConfig, tuple(left_out.values()))


def _base(type_: Any, preset: Preset, dataset: str, assignments: Mapping[str, Any]) -> dict[str, Any]:
    """The preset's configuration for a data set, as the user has changed it."""
    from sbbridge.study.tasks import primary_metric

    _, features = primary_metric(dataset)
    judged = {"evaluation.features": features} if features else {}
    tree = config.dump(type_())
    # one after the other: a data set's network may be of another kind, without the options of the preset's
    for changes in ({**judged, **preset.base, "dataset": dataset}, preset.by_dataset.get(dataset, {}), assignments):
        tree = design.resolve(type_, tree, changes)
    return tree


def _check_watched(type_: Any, name: str, bases: Mapping[str, dict[str, Any]]) -> None:
    """A scheduler needs trainings that are judged on their way."""
    for base in bases.values():
        if base["method"]["kind"] == "ldsb":
            raise ConfigurationError(f"--scheduler asha: {name} fits paths, which are not judged on their way")
        if config.parse(type_, base).evaluation.curve < 2:
            raise ConfigurationError("--scheduler asha needs evaluation.curve >= 2: the points at which it may stop")


def variants(type_: Any, preset: Preset, base: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, configuration) of the arms, of each level of the factors alone, and of the preset itself."""
    for arm in preset.arms:
        yield arm.name, design.resolve(type_, base, arm.overrides)
    for factor in preset.factors:
        for value in factor.values:
            if factor.path not in ("nfe", "sampler"):
                yield f"{factor.label} = {value}", design.resolve(type_, base, {factor.path: value})
    yield "the preset", dict(base)


def _check_budget(parsed: Any, name: str) -> None:
    """A budget that a method cannot keep is found before anything runs."""
    from sbbridge.methods import cost

    if parsed.training.budget:
        try:
            cost.within(parsed.method, parsed.training.budget, parsed.training.batch_size)
        except ConfigurationError as error:
            raise ConfigurationError(f"{name}: {error}") from None


def _without_fixed(preset: Preset, base: Mapping[str, Any], assignments: Mapping[str, Any]) -> Preset:
    """The preset without factors that the user has set, or that the configuration which they chose does not have."""

    def varies(factor: Factor) -> bool:
        known = factor.path in ("nfe", "sampler") or design.value_at(base, factor.path) is not None
        return known and factor.path not in assignments

    factors = tuple(factor for factor in preset.factors if varies(factor))
    crossed = preset.grid is not None and set(preset.grid) <= {factor.path for factor in factors}
    space = tuple(factor for factor in preset.space if varies(factor))
    return replace(preset, space=space, factors=factors, grid=preset.grid if crossed else None)
