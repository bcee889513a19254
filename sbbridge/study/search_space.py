"""What the search asks of a trial: Optuna's choices, resolved and packed as Ray carries them."""

from typing import Any

from sbbridge.study import design
from sbbridge.study.definition import Preset


class SearchSpace:
    """Optuna's trial -> Ray's configuration; a class, because Ray pickles it.

    Args:
        space: what is searched.
        type_: of the configuration.
        base: what the choices change.
        fields: of a trial, with the template of its job as the only one of "jobs".
    """

    def __init__(self, space: design.Space, type_: Any, base: dict[str, Any], fields: dict[str, Any]) -> None:
        self._space, self._type, self._base, self._fields = space, type_, base, fields

    def __call__(self, trial: Any) -> dict[str, Any]:
        """Suggests, resolves, and packs the job."""
        from sbbridge.study.trial import digests

        suggested = self._space(trial)
        choices = dict(suggested["choices"])
        nfe, sampler = choices.pop("nfe", self._fields["nfe"]), choices.pop("sampler", None)
        tree = design.resolve(self._type, self._base, choices)
        digest, training_digest = digests(tree)
        (template,) = self._fields["jobs"]
        job = {**template, "tree": tree, "digest": digest, "training_digest": training_digest}
        return {"trial": {**self._fields, "jobs": [job], "nfe": nfe, "sampler": sampler,
                          "optuna_number": suggested["optuna_number"], "choices": suggested["choices"]}}  # fmt: skip


def first_point(preset: Preset, base: dict[str, Any]) -> dict[str, Any]:
    """The preset's own configuration, as a point of its space."""
    point: dict[str, Any] = {}
    for factor in preset.space:
        if factor.only_if is not None and point.get(factor.only_if[0]) != factor.only_if[1]:
            continue
        held = preset.centre_nfe if factor.path == "nfe" else design.value_at(base, factor.path)
        point[factor.path] = held if held in factor.values else factor.values[0]
    return point
