"""A study resolved: options, preset and configuration, checked before anything runs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sbbridge import config
from sbbridge.config import ConfigurationError
from sbbridge.study import design
from sbbridge.study.definition import OBJECTIVES, Definition, Factor, Preset
from sbbridge.study.proposals import earlier_points, first_points
from sbbridge.study.space import Space, resolve, search_space

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
        objectives: what the search minimises, by the command line's names.
        alone: the configuration itself and nothing else: no search, no factors, no rivals.
        start_from: the folder of an earlier study whose best proposals are asked first.
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
    objectives: tuple[str, ...] = ("quality", "nfe")
    alone: bool = False
    start_from: str | None = None


@dataclass
class Plan:
    """A study resolved: what it will be, before anything runs.

    Attributes:
        bases: {data set: configuration}; of a study of paths that may be, the configuration without one.
        fixed: {"method.kind": …} where the user has said whether there is a path.
        of_path: what the user has set of it.
        left_out: rivals that what the user has set, or their data, makes impossible, and why.
        points: what the search asks first.
        dropped: what of an earlier study's proposals has no place here, a line each.
    """

    definition: Definition
    preset: Preset
    options: Options
    bases: dict[str, dict[str, Any]]
    type_: Any
    fixed: Mapping[str, Any]
    of_path: Mapping[str, Any]
    left_out: tuple[str, ...] = ()
    points: tuple[Mapping[str, Any], ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def base(self) -> dict[str, Any]:
        """The configuration of the only data set, or of the first."""
        return next(iter(self.bases.values()))

    def space(self, dataset: str | None = None) -> Space:
        """What the search proposes, over a data set's configuration; of the first by default."""
        name = dataset or next(iter(self.bases))
        found = search_space(self.type_, self.preset, self.bases[name], self.fixed, self.of_path)
        if not self.options.assignments:
            return found
        shipped = _base(self.type_, self.preset, name, {})
        return replace(found, said=self.options.assignments, shipped=shipped)

    def centre(self, dataset: str | None = None) -> design.Centre:
        """The preset's own configuration as a centre."""
        return design.Centre(self.space(dataset).tree({}))

    @property
    def objectives(self) -> tuple[str, ...]:
        """What the search minimises, as trials report it."""
        return tuple(OBJECTIVES[name] for name in self.options.objectives)

    @property
    def evaluations(self) -> int:
        """Network evaluations that a training of the base takes."""
        parsed = config.parse(self.type_, self.base)
        return int(parsed.training.budget or parsed.method.cost(parsed.training.batch_size))

    @property
    def trainings(self) -> tuple[int, int]:
        """How many the search and the ablation ask for, arms included, with the preset itself as centre."""
        found = (design.ablation_trees(self.space(name), self.preset, self.centre(name)) for name in self.bases)
        cells = sum(1 for trees in found for _ in trees) + len(self.preset.finalists)
        return self.options.trials, cells * self.options.seeds

    @property
    def denoisers(self) -> list[tuple[dict[str, Any], int, str]]:
        """(configuration, seed, phase) of what paths are fitted for; an arm of its own is of the ablation."""
        trees = [tree for name in self.bases for tree in design.denoiser_trees(self.space(name), self.preset)]
        alone = replace(self.preset, factors=(), arms=())
        searched = [tree for name in self.bases for tree in design.denoiser_trees(self.space(name), alone)]
        asked = [(tree, seed) for tree in trees for seed in range(self.options.seeds)]
        if self.options.trials:  # rivals are never searched
            asked += [(tree, design.SEARCH_SEED) for tree in searched]
        arms = {
            config.digest(design.arm_tree(self.space(name), arm, self.centre(name)))
            for name in self.bases for arm in self.preset.arms if arm.denoiser
        }  # fmt: skip
        return [
            (tree, seed, "ablation" if config.digest(tree) in arms and seed != design.SEARCH_SEED else "denoiser")
            for tree, seed in asked
        ]


def make_plan(definition: Definition, options: Options) -> Plan:
    """Resolves and checks everything that needs no Ray.

    Raises:
        ConfigurationError: naming the field and what is allowed.
    """
    from sbbridge.study.trial import TrialConfig

    if "dataset" in options.assignments:
        raise ConfigurationError("--set dataset: use --dataset, which also chooses how results are judged")
    preset = definition.presets[options.preset]
    if options.alone:
        preset = replace(preset, trials=0, space=(), factors=(), grid=(), arms=(), points=(), finalists=(),
                         centre="preset")  # fmt: skip
    names = preset.datasets if options.dataset == ALL else (options.dataset,)
    assignments = {**(WATCHED if options.scheduler == "asha" else {}), **options.assignments}
    mine, of_path, fixed = _divided(TrialConfig, preset, names[0], assignments)
    bases = {name: _base(TrialConfig, preset, name, mine) for name in names}
    if options.scheduler == "asha":
        _check_watched(TrialConfig, bases)
    plan = Plan(definition, preset, options, bases, TrialConfig, fixed, of_path)
    plan.preset = _without_fixed(preset, plan.space(), {**mine, **of_path, **fixed})
    plan.preset, plan.left_out = _feasible(plan)
    if options.trials and not plan.preset.space:
        raise ConfigurationError(f"--trials {options.trials}: preset {options.preset} has nothing to search")
    plan.points = tuple(first_points(plan.space(), plan.preset))
    if options.start_from:
        earlier, dropped = earlier_points(options.start_from, plan.space())
        plan.points += tuple(point for point in earlier if point not in plan.points)
        plan.dropped = tuple(dropped)
    return plan


def _divided(type_: Any, preset: Preset, dataset: str, assignments: Mapping[str, Any],
             ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:  # fmt: skip
    """What the user has set: of the configuration, of a path of its own, and whether there is to be one."""
    if preset.own_path is None:
        return dict(assignments), {}, {}
    space = search_space(type_, preset, _base(type_, preset, dataset, {}), {}, {})
    of_path = {path: value for path, value in assignments.items() if space.is_of_path(path, value)}
    fixed = {path: value for path, value in assignments.items() if path == "method.kind"}
    if fixed and fixed["method.kind"] not in ("asbm", "ldsb"):
        raise ConfigurationError(f"method.kind: {fixed['method.kind']!r} is not searched here (allowed: asbm, without "
                                 f"a path of its own, and ldsb, with one)")  # fmt: skip
    mine = {path: value for path, value in assignments.items() if path not in of_path and path not in fixed}
    whether = next((factor for factor in preset.space if factor.path == "method.kind"), None)
    if fixed.get("method.kind") == "ldsb" and whether and whether.only_if:  # every field then has to allow one
        needed = {path: levels[0] for path, levels in whether.only_if[0].items()}
        if not set(needed) & set(mine):
            mine |= needed
    return mine, of_path, fixed


def _feasible(plan: Plan) -> tuple[Preset, tuple[str, ...]]:
    """The preset without rivals that cannot be, and why; whatever else cannot be is refused."""
    from sbbridge.study.feasible import check_feasible

    options, preset = plan.options, plan.preset
    rivals, left_out = {arm.name for arm in preset.arms}, dict[str, str]()
    for name in plan.bases:
        space = plan.space(name)
        _ = plan.centre(name), space.with_path  # what the user has set is refused without a level's name
        design.check_space(space, preset.factors)
        for what, tree in variants(plan, name):
            try:
                parsed = config.parse(plan.type_, tree())
                check_feasible(parsed, what)
            except ConfigurationError as error:
                # what the user has set, data included, may leave no room for a rival, and is no mistake for it
                if what not in rivals or not (options.assignments or name not in preset.datasets):
                    raise
                left_out[what] = str(error)
            else:
                _check_budget(parsed, what)
    return replace(preset, arms=tuple(arm for arm in preset.arms if arm.name not in left_out)), tuple(left_out.values())


def variants(plan: Plan, dataset: str) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """(name, what makes the configuration) of the arms, each level alone, every cell of the design, and the preset."""
    space, centre = plan.space(dataset), plan.centre(dataset)
    for arm in plan.preset.arms:
        yield arm.name, partial(design.arm_tree, space, replace(arm, denoiser=False), centre)
    start = space.complete({})
    for factor in space.factors:
        for value in factor.values if factor.configured else ():
            point = space.complete({**space.meeting(factor, start), factor.path: value})
            yield f"{factor.label} = {value}", partial(space.tree, point)
    for cell in design.ablation_cells(space, plan.preset, centre):
        named = ", ".join(f"{path} = {level}" for path, level in cell.levels.items() if level is not None)
        yield named or "the preset", partial(design.cell_tree, space, plan.preset, centre, cell)
    yield "the preset", lambda: dict(centre.tree)


def _base(type_: Any, preset: Preset, dataset: str, assignments: Mapping[str, Any]) -> dict[str, Any]:
    """The preset's configuration for a data set, as the user has changed it."""
    from sbbridge.study.tasks import primary_metric

    _, features = primary_metric(dataset)
    judged = {"evaluation.features": features} if features else {}
    tree = config.dump(type_())
    # one after the other: a data set's network may be of another kind, without the options of the preset's
    for changes in ({**judged, **preset.base, "dataset": dataset}, preset.by_dataset.get(dataset, {}), assignments):
        tree = resolve(type_, tree, changes)
    return tree


def _check_watched(type_: Any, bases: Mapping[str, dict[str, Any]]) -> None:
    """A scheduler needs trainings that are judged on their way."""
    for base in bases.values():
        if config.parse(type_, base).evaluation.curve < 2:
            raise ConfigurationError("--scheduler asha needs evaluation.curve >= 2: the points at which it may stop")


def _check_budget(parsed: Any, name: str) -> None:
    """A budget that a method cannot keep is found before anything runs."""
    from sbbridge.methods import cost

    if parsed.training.budget:
        try:
            cost.within(parsed.method, parsed.training.budget, parsed.training.batch_size)
        except ConfigurationError as error:
            raise ConfigurationError(f"{name}: {error}") from None


def _without_fixed(preset: Preset, space: Space, assignments: Mapping[str, Any]) -> Preset:
    """The preset without factors that the user has set, that the configuration lacks, or that never matter."""
    kept: dict[str, Factor] = {}

    def met(path: str, levels: tuple[Any, ...]) -> bool:
        held = kept[path].values if path in kept else (assignments.get(path, space.held(path)),)
        return any(level in levels for level in held)

    def varies(factor: Factor) -> bool:
        if factor.path in assignments:
            return False
        if factor.only_if:
            return any(all(met(path, levels) for path, levels in when.items()) for when in factor.only_if)
        return not factor.configured or space.held(factor.path) is not None

    for factor in (*preset.space, *preset.factors):
        if varies(factor):
            kept[factor.path] = factor
    searched = {factor.path for factor in (*preset.space, *preset.factors)}

    def said(factor: Factor) -> Factor:
        """Without levels that contradict the user; numbers that a level would bring give way to theirs."""
        gone = (searched | set(assignments)) - set(kept)
        brings = {
            level: {path: value for path, value in changes.items() if path not in gone}
            for level, changes in factor.brings.items()
        }  # fmt: skip
        if factor.configured:
            return replace(factor, brings=brings)
        against = {
            level for level, changes in factor.brings.items() for path, value in changes.items()
            if isinstance(value, str) and path in assignments and assignments[path] != value
        }  # fmt: skip
        return replace(factor, brings=brings, values=tuple(level for level in factor.values if level not in against))

    factors = tuple(f for f in (said(factor) for factor in preset.factors if factor.path in kept) if f.values)
    names = {factor.path for factor in factors if len(factor.values) > 1 or factor.configured}
    grid = tuple(path for path in preset.grid if path in names)
    searched_still = tuple(said(factor) for factor in preset.space if factor.path in kept)
    return replace(
        preset, space=searched_still, factors=tuple(factor for factor in factors if factor.path in names),
        grid=grid if len(grid) > 1 else (),
    )  # fmt: skip
