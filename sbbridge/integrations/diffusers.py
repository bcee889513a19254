"""A fitted LDSB path as a diffusers scheduler: a small JSON that stock pipelines run.

    scheduler = LDSBScheduler.from_path(path, prediction="epsilon", chain=True)
    scheduler.save_pretrained(folder)

    pipeline = DDPMPipeline(unet, LDSBScheduler.from_pretrained(folder))
    pipeline(num_inference_steps=len(scheduler.path))

`DDIMPipeline` makes a DDIMScheduler of whatever scheduler it is constructed with; it is refused here, where it would
silently sample along DDIM's own path. Assign the scheduler instead: `pipeline = DDIMPipeline.from_pretrained(…)`,
`pipeline.scheduler = LDSBScheduler.from_pretrained(…)`. A pipeline that was saved with this scheduler is loaded again
by `DDPMPipeline.from_pretrained` once this module is imported.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, final

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from sbbridge.data import DataError
from sbbridge.integrations.published import weights_sha256
from sbbridge.path import LINEAR, Denoiser, RatioPath
from sbbridge.path.denoiser import Timesteps
from sbbridge.path.scheduler import PREDICTIONS, scheduler_config
from sbbridge.solvers.ratio_path import leave
from sbbridge.types import State, expand_like

SchedulerPrediction: TypeAlias = Literal["epsilon", "sample", "velocity"]
_SAME_STEP = 1e-3  # in training timesteps: above the rounding of float32 at 1000, below the distance of any two nodes
_NO_SCHEDULE = "an LDSB path (set pipeline.scheduler after construction: DDIMPipeline converts its argument)"


@final
class LDSBScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # its bases disagree on config_name
    """Steps along x_k = a_k x0 + b_k eps (LDSB, arXiv 2502.19754, Sec. 3), those of `descend`.

    x_{k−1} = a_{k−1} x̃_k + b_{k−1} epshat_k, x̃_k = x0hat_k + c_k (x0hat_k − x0hat_{k+1}); node 0 returns x̃_0. The
    configuration is the JSON of `save_pretrained`: numbers, and the names of what the network predicts.

    Args:
        times, image, noise: t_k, a_k, b_k of node k = 0 … N − 1, 0 nearest to the data, `[N]`.
        momentum: c_k, `[N − 1]`, or None.
        prediction: what the network's output is.
        chain: time (i + 1) / num_train_timesteps is timestep i, else t is timestep t num_train_timesteps.
        num_train_timesteps: of the network.
        denoiser_digest: of the denoiser that the path was fitted for.

    Raises:
        ValueError: the numbers are no path, or one that this prediction cannot be used on.
    """

    # so that from_config drops `beta_schedule` without a warning, which exists for these schedulers alone
    _compatibles = ["DDIMScheduler", "DDPMScheduler"]  # noqa: RUF012  ConfigMixin declares it without ClassVar
    order = 1
    init_noise_sigma = 1.0

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, *, times: Sequence[float] = (), image: Sequence[float] = (), noise: Sequence[float] = (),
                 momentum: Sequence[float] | None = None, prediction: str = "epsilon", chain: bool = True,
                 num_train_timesteps: int = 1000, denoiser_digest: str = "") -> None:  # fmt: skip
        # by keyword: diffusers takes positional arguments for defaults, which from_config drops
        _require_known(prediction)
        if isinstance(num_train_timesteps, bool) or not isinstance(num_train_timesteps, int) or num_train_timesteps < 1:
            raise ValueError(f"num_train_timesteps must be a whole number >= 1, got {num_train_timesteps!r}")
        if not isinstance(chain, bool):
            raise ValueError(f"chain must be true or false, got {chain!r}")
        self._path = _path_of(times, image, noise, momentum)
        _require_usable(self._path, prediction)
        self._steps = self._path.times * num_train_timesteps - (1 if chain else 0)
        if self._steps[0] < -_SAME_STEP or (self._steps.diff() <= 2 * _SAME_STEP).any():
            raise ValueError(f"times must rise from the first of {num_train_timesteps} timesteps, got "
                             f"{[round(t, 5) for t in self._path.times.tolist()]}")  # fmt: skip
        # DDIMScheduler raises on it, and says this text, where it would take its own defaults for the path
        self.register_to_config(beta_schedule=_NO_SCHEDULE)  # type: ignore[no-untyped-call]
        self.set_timesteps(len(self._path))

    @classmethod
    def from_path(cls, path: RatioPath, *, prediction: SchedulerPrediction, chain: bool,
                  num_train_timesteps: int = 1000, denoiser_digest: str = "") -> Self:  # fmt: skip
        """The scheduler of a path that was fitted for a denoiser which predicts this.

        Raises:
            ValueError: a or b is not positive, finite and monotone, or this prediction cannot be used on them.
        """
        _require_known(prediction)
        timesteps = Timesteps(PREDICTIONS[prediction], chain, num_train_timesteps)
        return cls(**scheduler_config(path, timesteps, denoiser_digest))

    def require_denoiser(self, where: str | Path) -> None:
        """Compares the denoiser's digest with the weights of a diffusers folder or a DDPM checkpoint.

        Raises:
            ValueError: there are none, the path was fitted for others, or does not say for which.
        """
        if not (wanted := str(self.config["denoiser_digest"])):
            raise ValueError("this path does not say which denoiser it was fitted for (denoiser_digest)")
        if "-" in wanted:
            raise ValueError(f"this path was fitted for the denoiser {wanted}, which a study trained, not for a file")
        try:
            found = weights_sha256(where)
        except DataError as problem:
            raise ValueError(str(problem)) from None
        if not found.startswith(wanted):
            raise ValueError(f"this path was fitted for the denoiser {wanted}, the weights of {where} are "
                             f"{found[: len(wanted)]}; a path serves the one that it was fitted for")  # fmt: skip

    @property
    def path(self) -> RatioPath:
        """Nodes, a, b and momentum, float64."""
        return self._path

    def __len__(self) -> int:
        """Timesteps of the network's training, as diffusers counts them; the path's own are `len(self.path)`."""
        return int(self.config["num_train_timesteps"])

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Begins a sample: `timesteps`, `[N]`, falling, whole numbers where the network knows no others.

        Raises:
            ValueError: the path has another number of steps.
        """
        count = len(self._path)
        if num_inference_steps != count:
            raise ValueError(f"num_inference_steps is {num_inference_steps}, but this path was fitted for {count} "
                             f"steps: pass num_inference_steps={count}")  # fmt: skip
        whole = self._steps.round()
        exact = bool(self.config["chain"]) and bool(((whole - self._steps).abs() < 1e-6).all())
        steps = whole.long() if exact else self._steps.float()
        self.num_inference_steps = count
        self.timesteps = steps.flip(0).to(device)
        self._last: tuple[int, State] | None = None

    def scale_model_input(self, sample: State, timestep: float | Tensor | None = None) -> State:
        """The network sees the state as it is."""
        return sample

    def step(self, model_output: State, timestep: float | Tensor, sample: State, eta: float = 0.0,
             use_clipped_model_output: bool | None = None, generator: Any = None,
             return_dict: bool = True) -> DDIMSchedulerOutput | tuple[State, State]:  # fmt: skip
        """The state of the next node, and x0hat of this one.

        Args:
            model_output: of the network at this timestep and state, `[n, *shape]`.
            timestep: one of `timesteps`.
            sample: state, `[n, *shape]`.
            eta: of DDIM, on this path: 0 is deterministic, 1 draws as much noise anew as DDPM's chain would.
            use_clipped_model_output: as DDIMPipeline passes it; there is no clipping.
            generator: of that noise.
            return_dict: False: (next state, x0hat).

        Raises:
            ValueError: the timestep is no node, values are not finite, shapes differ, eta is not in [0, 1], or clipping
                is asked for.
        """
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must be in [0, 1], got {eta}")
        if use_clipped_model_output:
            raise ValueError("use_clipped_model_output must stay off: an LDSB path was fitted without clipping")
        if model_output.shape != sample.shape:
            raise ValueError(f"the model's output is {list(model_output.shape)}, the state {list(sample.shape)}: "
                             "a network that also predicts variances must be cut to its first half")  # fmt: skip
        nodes = self._nodes(timestep)
        if len(nodes) != 1:
            raise ValueError(f"step takes one timestep for all states, got {len(nodes)}")
        k = int(nodes)
        if not torch.isfinite(model_output).all():
            raise ValueError(f"the model's output is not finite at timestep {float(self._steps[k]):g}")
        moved, image = self._moved(k, model_output, sample, eta, generator)
        moved, image = moved.to(sample), image.to(sample)
        return DDIMSchedulerOutput(prev_sample=moved, pred_original_sample=image) if return_dict else (moved, image)

    def _moved(self, k: int, value: State, sample: State, eta: float, generator: Any) -> tuple[State, State]:
        dtype = torch.promote_types(sample.dtype, torch.float32)  # a, b and c have too many digits for half precision
        path, value, x = self._path, value.to(dtype), sample.to(dtype)
        denoiser = Denoiser(LINEAR, PREDICTIONS[self.config["prediction"]], lambda t, x: value)
        image, noise = denoiser.estimates(path.times[k], x, path.image[k], path.noise[k])
        used = image
        if path.momentum is not None:
            # an estimate of another node or batch is left over from a sample that was not finished
            if self._last is not None and self._last[0] == k + 1 and self._last[1].shape == image.shape:
                used = image + path.momentum[k].to(x) * (image - self._last[1].to(image))
            self._last = (k, image)

        def anew() -> State:
            drawn: State = randn_tensor(x.shape, generator=generator, device=x.device, dtype=dtype)
            return drawn

        return leave(path, k, used, noise, eta, anew), image

    def add_noise(self, original_samples: State, noise: State, timesteps: Tensor) -> State:
        """a_k x0 + b_k eps at the nodes of these timesteps, `[n]` or `[]`, for images `[n, *shape]`.

        Raises:
            ValueError: a timestep is no node of the path, or there are not as many as images.
        """
        nodes = self._nodes(timesteps)
        if len(nodes) not in (1, len(original_samples)):
            raise ValueError(f"add_noise got {len(original_samples)} images and {len(nodes)} timesteps")
        a, b = (expand_like(of[nodes], original_samples) for of in (self._path.image, self._path.noise))
        return a * original_samples + b * noise

    def _nodes(self, timesteps: float | Tensor) -> Tensor:
        """Indices k of timesteps, `[n]`."""
        asked = torch.as_tensor(timesteps).detach().to("cpu", torch.float64).reshape(-1)
        gaps, nodes = (asked[:, None] - self._steps).abs().min(dim=1)
        off = ~(gaps <= _SAME_STEP)
        if off.any():
            known = ", ".join(f"{step:g}" for step in self._steps.tolist())
            raise ValueError(f"timestep {float(asked[off][0]):g} is no node of this path (nodes: {known})")
        return nodes


def _path_of(times: Sequence[float], image: Sequence[float], noise: Sequence[float],
             momentum: Sequence[float] | None) -> RatioPath:  # fmt: skip
    if not len(times):
        raise ValueError("no times, image and noise: an LDSB scheduler comes from LDSBScheduler.from_path or its JSON")
    lists = {"times": times, "image": image, "noise": noise, "momentum": momentum}
    tensors: dict[str, Tensor | None] = {name: _numbers(name, values) for name, values in lists.items()}
    for name, tensor in tensors.items():
        if tensor is not None and not torch.isfinite(tensor).all():
            raise ValueError(f"{name} must be finite, got {tensor.tolist()}")
    return RatioPath(**tensors).checked()  # type: ignore[arg-type]


def _numbers(name: str, values: Sequence[float] | None) -> Tensor | None:
    if values is None and name == "momentum":
        return None
    if not isinstance(values, list | tuple) or not all(type(value) in (int, float) for value in values):
        raise ValueError(f"{name} must be a list of numbers, got {values!r}")
    return torch.tensor(values, dtype=torch.float64)


def _require_known(prediction: str) -> None:
    if prediction not in PREDICTIONS:
        raise ValueError(f"unknown prediction {prediction!r} (allowed: {', '.join(PREDICTIONS)})")


def _require_usable(path: RatioPath, prediction: str) -> None:
    """The estimates divide by a where the network predicts eps, and by b (but at node 0) where it predicts x0."""
    if prediction == "epsilon" and path.image[-1] == 0:
        raise ValueError("prediction epsilon needs a > 0 at every node: without signal there is no estimate of x0")
