"""What a run of LDSB is called: its denoiser, its way of fitting, its network."""

import re
from collections.abc import Mapping

from analysis import formats
from analysis.design import Design, Setting

ORIGINAL, PUBLISHED_FIT, RANDOM = "none", "ipf", "random"
FITS = (ORIGINAL, PUBLISHED_FIT, "ipf_exact", "teacher", RANDOM)
KANS = ("efficient_kan", "kan")
TABLE = "table"
ON_REPORTED = "selected on the reported split"
_HALVES = ("reverse", "forward")
DDIM, FLOW = "DDIM", "flow"
BROUGHT = "published"
"""The kind of a denoiser that others trained."""
_DENOISERS = {"score_matching_vp": DDIM, "flow_matching": FLOW, "ot_cfm": "OT-CFM"}
_EXACT = {"vp": "exact DDIM", "flow": "exact flow"}
_WORDS = {ORIGINAL: "original", PUBLISHED_FIT: "LDSB", "ipf_exact": "ipf exact", "teacher": "teacher"}
_NETWORKS = {"efficient_kan": "KAN", "kan": "KAN of pykan", "ratio_mlp": "MLP", TABLE: "table"}
_SAID = frozenset({
    "method.num_steps", "method.grid", "method.fit.kind", "method.fit.halves", "method.fit.learn_times",
    "method.fit.order", "method.fit.candidates", "network.kind", "network.squash",
})  # fmt: skip
"""Factors whose levels the words of a way say already, or its table's columns."""


def denoiser_family(leaves: Mapping[str, object]) -> str | None:
    """The paper's name for the family of a path's denoiser: DDIM for a matched score, flow for flow matching.

    None for a denoiser that the user brought: its files tell, and the path that was recorded.
    """
    kind = str(leaves.get("method.denoiser.kind") or "trained")
    if kind == "exact":
        family = str(leaves.get("method.denoiser.family") or "vp")
        return _EXACT.get(family, f"exact {family}")
    if kind == BROUGHT:
        return None
    method = str(leaves.get("method.denoiser.method.kind") or "unknown")
    return _DENOISERS.get(method, formats.level(method))


def way_name(design: Design, setting: Setting) -> str:
    """The arm's name without what its table says (denoiser, N); of a level of the factors, what sets it apart."""
    named = next((arm for arm in setting.arms if arm != design.centre_arm and arm.nfe is None), None)
    if named is not None:
        parts = [part for part in named.name.split(", ") if not re.fullmatch(r"N = \d+", part)]
        kept = parts[1:] if len(parts) > 1 and parts[0] == named.family else parts
        return ", ".join(kept)
    further = [
        f"{factor.label} {formats.level(level)}" for factor in design.factors
        if factor.path in design.told(setting.changed) and factor.path not in _SAID
        and not factor.path.startswith(("method.denoiser.", "reference."))
        and (level := setting.level(factor.path)) is not None
    ]  # fmt: skip
    return ", ".join([*fit_words(setting.leaves), *further])


def fit_words(leaves: Mapping[str, object]) -> list[str]:
    """The way of fitting in the words of the study's arms, the network last."""
    kind = fit_of(leaves)
    if kind == RANDOM:
        words = [f"best of {formats.level(leaves.get('method.fit.candidates'))} random paths"]
    else:
        words = [_WORDS.get(kind, formats.level(kind))]
    halves = leaves.get("method.fit.halves")
    words += [f"{halves} only"] if halves in _HALVES else []
    words += [f"order {formats.level(leaves.get('method.fit.order'))}"] if leaves.get("method.fit.order") == 2 else []
    words += ["times"] if leaves.get("method.fit.learn_times") else []
    return words if kind == ORIGINAL else [*words, network_name(leaves, size=False)]


def fit_of(leaves: Mapping[str, object]) -> str:
    """The kind of fit; a run that names none is the published one, the default of LDSB."""
    return str(leaves.get("method.fit.kind") or PUBLISHED_FIT)


def is_control(leaves: Mapping[str, object]) -> bool:
    """Whether a way is there to be compared with alone: nothing learned, half of the procedure, or chosen on test."""
    return fit_of(leaves) == RANDOM or leaves.get("method.fit.halves") in _HALVES or chosen_on_reported(leaves)


def chosen_on_reported(leaves: Mapping[str, object]) -> bool:
    """Whether the path was selected on the very split that is reported, as the authors did."""
    return leaves.get("method.select") == "reported"


def is_alternating(leaves: Mapping[str, object]) -> bool:
    """Whether this is the paper's procedure but for the ends of the path: alternating halves of a KAN."""
    whole = fit_of(leaves) == PUBLISHED_FIT and leaves.get("method.fit.halves") not in _HALVES
    return whole and str(leaves.get("network.kind")) in KANS


def is_published(leaves: Mapping[str, object]) -> bool:
    """Whether it is the paper's procedure with the paper's, or the release's, ends of the path."""
    return is_alternating(leaves) and has_published_ends(leaves)


def has_published_ends(leaves: Mapping[str, object]) -> bool:
    """Whether the ends of the path are the paper's or the release's."""
    return leaves.get("method.boundary") in ("paper", "code")


def procedure_name(leaves: Mapping[str, object]) -> str:
    """What the alternating procedure may be called."""
    boundary = formats.level(leaves.get("method.boundary"))
    return "LDSB as published" if is_published(leaves) else f"LDSB with boundary {boundary}"


def network_name(leaves: Mapping[str, object], size: bool = True) -> str:
    """The parameterisation: "KAN, G = 20", "MLP without sigmoid", "table"."""
    kind = str(leaves.get("network.kind") or "unknown")
    name = _NETWORKS.get(kind, formats.level(kind))
    if kind == "ratio_mlp" and leaves.get("network.squash") is False:
        name += " without sigmoid"
    grid = leaves.get("network.grid_size")
    return f"{name}, G = {formats.level(grid)}" if size and kind in KANS and grid is not None else name
