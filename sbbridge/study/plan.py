"""A study resolved: options, preset and configuration, checked before anything runs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sbbridge import config
from sbbridge.config import ConfigurationError
from sbbridge.study import design
from sbbridge.study.definition import Definition, Factor, Preset


@dataclass(frozen=True)
class Options:
    """What the command line said, checked.

    Attributes:
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
    use_gpu: bool = False
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    max_concurrent: int | None = None
    trial_timeout: float | None = None
    patience: int | None = None
    optuna_storage: str | None = None
    skip_bad: bool = False


@dataclass
class Plan:
    """A study resolved: what it will be, before anything runs."""

    definition: Definition
    preset: Preset
    options: Options
    base: dict[str, Any]
    type_: Any

    @property
    def trainings(self) -> tuple[int, int]:
        """How many the search and the ablation ask for (arms included)."""
        cells = len(design.ablation_cells(self.preset, self.base)) + len(self.preset.arms)
        return self.options.trials, cells * self.options.seeds


def make_plan(definition: Definition, options: Options) -> Plan:
    """Resolves and checks everything that needs no Ray.

    Raises:
        ConfigurationError: naming the field and what is allowed.
    """
    from sbbridge.study.tasks import primary_metric
    from sbbridge.study.trial import TrialConfig

    if "dataset" in options.assignments:
        raise ConfigurationError("--set dataset: use --dataset, which also chooses how results are judged")
    preset = definition.presets[options.preset]
    defaults = config.dump(TrialConfig())
    _, features = primary_metric(options.dataset)
    judged = {"evaluation.features": features} if features else {}
    base = design.resolve(TrialConfig, defaults, {**judged, **preset.base, "dataset": options.dataset})
    base = design.resolve(TrialConfig, base, options.assignments)
    if options.trial_timeout is not None and options.trial_timeout <= 0:
        raise ConfigurationError(f"--trial-timeout must be > 0, got {options.trial_timeout}")
    preset = _without_fixed(preset, base, options.assignments)
    design.check_preset(TrialConfig, preset, base)
    for arm in preset.arms:
        design.resolve(TrialConfig, base, arm.overrides)
    return Plan(definition, preset, options, base, TrialConfig)


def _without_fixed(preset: Preset, base: Mapping[str, Any], assignments: Mapping[str, Any]) -> Preset:
    """The preset without factors that the user has set, or that the configuration which they chose does not have."""

    def varies(factor: Factor) -> bool:
        known = factor.path in ("nfe", "sampler") or design.value_at(base, factor.path) is not None
        return known and factor.path not in assignments

    factors = tuple(factor for factor in preset.factors if varies(factor))
    crossed = preset.grid is not None and set(preset.grid) <= {factor.path for factor in factors}
    space = tuple(factor for factor in preset.space if varies(factor))
    return replace(preset, space=space, factors=factors, grid=preset.grid if crossed else None)
