"""A trial's denoiser: trained once and shared, exact where the data's law is known, or the user's own."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sbbridge.config import dump
from sbbridge.data import DataError, Gaussian, GaussianMixture
from sbbridge.data.placing import shown
from sbbridge.integrations.published import load_denoiser, weights_sha256
from sbbridge.methods import LDSB, denoiser_of
from sbbridge.methods.denoisers import ExactDenoiser, PublishedDenoiser, TrainedDenoiser, exact_denoiser
from sbbridge.path import Denoiser, GaussianPath
from sbbridge.problems import BridgeProblem, DenoisingProblem
from sbbridge.sde import DDPM, AbstractLinearSDE
from sbbridge.solvers import reference_path
from sbbridge.study.design import denoiser_tree
from sbbridge.study.reporter import StudyReporter
from sbbridge.study.space import resolve
from sbbridge.study.turns import one_at_a_time
from sbbridge.training import Reporter, Trainer, Training, solution_of


def with_denoiser(config: Any, problem: BridgeProblem, seed: int,
                  reporter: StudyReporter) -> tuple[BridgeProblem, int | None]:  # fmt: skip
    """The problem together with the denoiser that its method asks for, and the network evaluations that it took.

    None where nothing was trained for it.

    Raises:
        DataError: the denoiser that the user must bring is missing, or the data's law is not known.
    """
    if not isinstance(config.method, LDSB):
        return problem, None
    options, spent = config.method.denoiser, None
    if isinstance(options, TrainedDenoiser):
        denoiser, spent = _trained(config, options, problem, seed, reporter)
    elif isinstance(options, ExactDenoiser):
        denoiser = _exact(options.family, problem)
    else:
        denoiser = _published(options, problem, reporter.device)
    return DenoisingProblem(problem.data, problem.prior, problem.reference, denoiser), spent


def _trained(config: Any, options: TrainedDenoiser, problem: BridgeProblem, seed: int,
             reporter: StudyReporter) -> tuple[Denoiser, int]:  # fmt: skip
    """Continues the training where its newest checkpoint stands: at its end, unless nobody has trained it yet."""
    from sbbridge.study.trial import TrialConfig, digests

    tree = denoiser_tree(dump(config))
    assert tree is not None
    _, training_digest = digests(resolve(TrialConfig, tree, {}))
    training = replace(Training(), **vars(options.training))
    checkpoints = _Checkpoints(reporter, training_digest)
    with one_at_a_time(reporter, training_digest, seed):
        trainer = Trainer(options.method, problem, options.network, training, seed, checkpoints)
        trainer.train()
    spent = trainer.position.simulation + trainer.position.optimisation
    return denoiser_of(solution_of(trainer), f"{training_digest}-{seed}"), spent


def write_down_published(bases: Iterable[dict[str, Any]]) -> None:
    """Puts the checksum of the weights that SB_DENOISER names into configurations that leave it open.

    Records then belong to these weights, and a study that is continued with others is refused.

    Raises:
        DataError: there are none.
    """
    for base in bases:
        options = base["method"].get("denoiser") or {}
        if options.get("kind") == "published" and options.get("sha256") is None:
            where = published_location()
            try:
                options["sha256"] = weights_sha256(where)
            except DataError as problem:
                raise DataError(f"SB_DENOISER {problem}") from None


def published_location() -> str:
    """Where the user says that their denoiser is.

    Raises:
        DataError: they do not.
    """
    where = os.environ.get("SB_DENOISER")
    if where is None:
        raise DataError("method.denoiser.kind published needs SB_DENOISER: a diffusers folder or a DDPM checkpoint")
    return where


def _published(options: PublishedDenoiser, problem: BridgeProblem, device: str) -> Denoiser:
    where = published_location()
    schedule = problem.reference if isinstance(problem.reference, DDPM) else None
    found = load_denoiser(where, problem.shape, options.prediction, options.sha256, device, schedule)
    if found.prediction != "velocity" and not _same_path(found.path, problem.reference):
        raise DataError(f"SB_DENOISER {shown(where)}: its noise schedule is not the reference's (allowed: --set "
                        f"reference.kind=ddpm with its betas)")  # fmt: skip
    return found


def _same_path(path: GaussianPath, reference: AbstractLinearSDE) -> bool:
    t = torch.linspace(0.1, 1.0, 10, dtype=torch.float64)
    return torch.allclose(path.mean(t), reference_path(reference).mean(t), atol=1e-4)


def _exact(family: str, problem: BridgeProblem) -> Denoiser:
    data = problem.data
    if isinstance(data, Gaussian):
        one = torch.ones(1, dtype=torch.float64)
        return exact_denoiser(one, data.mean[None], data.covariance[None], family, problem.reference)
    if isinstance(data, GaussianMixture):
        covariances = torch.diag_embed(data.variances)
        return exact_denoiser(data.weights, data.means, covariances, family, problem.reference)
    raise DataError("method.denoiser.kind exact: the law of these data is not known (known: gaussian64, "
                    "eight_gaussians)")  # fmt: skip


class _Checkpoints(Reporter):
    """Another training's checkpoints in the same store; its numbers were written by its own trial."""

    def __init__(self, reporter: StudyReporter, training_digest: str) -> None:
        super().__init__(reporter.workers, reporter.device)
        self._reporter, self._training_digest = reporter, training_digest

    def save(self, tensors: Mapping[str, Tensor], position: Mapping[str, Any]) -> None:
        self._reporter.save(tensors, position, self._training_digest)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        return self._reporter.load(self._training_digest)
