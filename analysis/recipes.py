"""A setting as a recipe in words: method, sampler, node grid and NFE, which is what a user has to set."""

from collections.abc import Mapping
from typing import Any

from analysis import formats
from analysis.design import OWN_PATH, Design, Setting
from analysis.ldsb.names import KANS, ORIGINAL, PUBLISHED_FIT, RANDOM, fit_of, network_name
from analysis.levels import leaf
from analysis.quality import Score

_COUPLINGS = {
    "independent": "independent pairs", "minibatch_ot": "pairs by mini-batch optimal transport",
    "minibatch_sinkhorn": "pairs by mini-batch Sinkhorn", "bridge_matching": "bridge matching's coupling",
    "asbm": "ASBM's coupling",
}  # fmt: skip
_METHODS = {
    "score_matching_vp": "score matching VP", "flow_matching": "flow matching", "ot_cfm": "OT-CFM",
    "dsbm_ipf": "DSBM-IPF", "dsbm_imf": "DSBM-IMF",
}  # fmt: skip
_FITS = {
    PUBLISHED_FIT: "fitted by LDSB's alternating halves", "ipf_exact": "fitted by exact alternating halves",
    "teacher": "fitted to a teacher",
}  # fmt: skip
_BLIND = ("independent", "minibatch_ot")
"""Couplings beside which a flow never sees the noise."""
_SAID = frozenset({
    OWN_PATH, "method.kind", "method.coupling", "method.student", "reference.beta_max", "reference.sigma",
    "method.num_steps", "method.grid", "method.fit.kind", "method.fit.order", "method.fit.learn_times",
    "method.fit.halves", "method.fit.candidates", "network.kind", "network.grid_size", "network.squash",
})  # fmt: skip
"""What the words say already where it belongs to the method."""


def recipe(design: Design, setting: Setting, score: Score | None) -> str:
    """Everything that a user has to set: the method, and how it is sampled within the score's NFE."""
    return ", ".join(part for part in (method_words(design, setting), sampled_words(setting, score)) if part)


def method_words(design: Design, setting: Setting, size: bool = True) -> str:
    """The method with what was set of it.

    Args:
        design: whose further factors are named, where they are of this method's configuration.
        setting: the setting.
        size: name the size of a KAN.
    """
    leaves = setting.leaves
    own = bool(setting.cells) or leaves.get("method.kind") == design.centre.get("method.kind")
    further = [
        f"{factor.label} = {formats.level(value)}" for factor in design.factors
        if own and factor.path not in _SAID and (value := setting.level(factor.path)) is not None
    ]  # fmt: skip
    if setting.method != "ldsb":
        return _field(leaves, further, setting.method)
    return _path(leaves, further, size)


def sampled_words(setting: Setting, score: Score | None) -> str:
    """Sampler, NFE and node grid; nothing of what needs no sampling."""
    if score is None or not score.sampler[0]:
        return ""
    sampler, grid = score.sampler
    steps = f" ({score.num_steps} steps)" if score.num_steps != score.counted else ""
    where = f" on the {formats.level(grid)} grid" if grid else ""
    if sampler == "ratio_path":
        name = "own path" if fit_of(setting.leaves) != ORIGINAL else "original path"
        nodes = f" from the {formats.level(grid)} grid" if grid else ""
        return f"sampled along its {name} of {score.num_steps} nodes{nodes} at NFE {score.counted}"
    return f"{formats.sampler(sampler)} sampler at NFE {score.counted}{steps}{where}"


def _field(leaves: Mapping[str, Any], further: list[str], method: str) -> str:
    """A coupling with its student, or another method by its name."""
    if method == "asbm":
        coupling = str(leaf(leaves, "method.coupling") or "asbm")
        name, student = _COUPLINGS.get(coupling, formats.level(coupling)), leaf(leaves, "method.student")
        blind = student == "flow" and coupling in _BLIND
        parts = [*([] if blind else _noise(leaves)), *([f"{student} student"] if student else []), *further]
    else:
        name = _METHODS.get(method, formats.level(method))
        parts = [*(_noise(leaves) if method == "score_matching_vp" else []), *further]
    return f"{name} ({', '.join(parts)})" if parts else name


def _noise(leaves: Mapping[str, Any]) -> list[str]:
    """What sets the level of the noise: only of references that have one."""
    if leaves.get("reference.kind") in (None, "vp", "linear") and leaves.get("reference.beta_max") is not None:
        return [f"noise β_max = {formats.level(leaves['reference.beta_max'])}"]
    if leaves.get("reference.kind") == "brownian" and leaves.get("reference.sigma") is not None:
        return [f"noise σ = {formats.level(leaves['reference.sigma'])}"]
    return []


def _path(leaves: Mapping[str, Any], further: list[str], size: bool) -> str:
    """A path of its own and the field that it is of."""
    kind = fit_of(leaves)
    field = _denoiser(leaves)
    if kind == ORIGINAL:
        return f"{field} along its original path"
    if kind == RANDOM:
        way = f"best of {formats.level(leaves.get('method.fit.candidates'))} random ones"
    else:
        way = _FITS.get(kind, f"fitted by {formats.level(kind)}")
    order, halves = leaves.get("method.fit.order"), leaves.get("method.fit.halves")
    parts = [f"{halves} half alone"] if halves in ("reverse", "forward") else []
    parts += [f"order {formats.level(order)}"] if kind == "teacher" and order is not None else []
    parts += ["learned times"] if leaves.get("method.fit.learn_times") else []
    network = network_name(leaves, size=False)
    grid = leaves.get("network.grid_size")
    sized = size and leaves.get("network.kind") in KANS and grid is not None
    parts += [] if kind == RANDOM else [f"{network} with G = {formats.level(grid)}" if sized else network]
    detail = ", ".join([*parts, *further])
    return f"{field} with a path of its own, {way}{f' ({detail})' if detail else ''}"


def _denoiser(leaves: Mapping[str, Any]) -> str:
    kind = str(leaves.get("method.denoiser.kind") or "trained")
    if kind == "exact":
        return f"the exact {formats.level(leaves.get('method.denoiser.family') or 'vp')} denoiser"
    method = leaves.get("method.denoiser.method.kind")
    if kind != "trained" or method is None:
        return f"a {formats.level(kind)} denoiser"
    noise = {path: value for path, value in leaves.items() if path.startswith("reference.")}
    own = {
        path.removeprefix("method.denoiser."): value for path, value in leaves.items()
        if path.startswith("method.denoiser.")
    }  # fmt: skip
    return _field({**own, **noise}, [], str(method))
