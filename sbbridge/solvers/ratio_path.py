"""LDSB's sampler: steps along a path x_k = a_k x0 + b_k eps of its own (LDSB, Sec. 3)."""

from collections.abc import Iterator

from sbbridge.path import Denoiser, RatioPath
from sbbridge.solvers.base import Noise
from sbbridge.solvers.ddim import split_noise
from sbbridge.types import State


def descend(denoiser: Denoiser, path: RatioPath, x: State, eta: float = 0.0,
            noise: Noise | None = None) -> Iterator[State]:  # fmt: skip
    """States after each of the path's N steps, the last of them x0hat of node 0.

    x_{k−1} = a_{k−1} x̃_k + b_{k−1} epshat_k with (x0hat_k, epshat_k) the denoiser's estimates at x_k and time t_k, and
    x̃_k = x0hat_k + c_k (x0hat_k − x0hat_{k+1}) where the path has momentum. N network calls a sample.

    Args:
        denoiser: that the path was fitted for.
        path: its nodes, a, b, c; may carry gradients.
        x: noise at node N − 1, `[n, *shape]`.
        eta: of DDIM, on this path: 0 is deterministic, 1 draws as much of b_{k−1} anew as DDPM's chain would.
        noise: draws standard normal numbers of x's shape, once a step but the last; needed where eta is not 0.

    Raises:
        ValueError: the path starts at a = 0, and the denoiser predicts noise; or eta is not 0, and there is no noise.
    """
    denoiser.require_image(path.image)
    before: State | None = None
    for k in reversed(range(len(path))):
        image, eps = denoiser.estimates(path.times[k], x, path.image[k], path.noise[k])
        used = image
        if path.momentum is not None and before is not None:
            used = image + path.momentum[k].to(x) * (image - before)
        before = image
        x = leave(path, k, used, eps, eta, noise)
        yield x


def leave(path: RatioPath, k: int, image: State, eps: State, eta: float = 0.0, noise: Noise | None = None) -> State:
    """x_{k−1} = a_{k−1} image + kept eps + added noise, with kept^2 + added^2 = b_{k−1}^2; the image leaves node 0."""
    if k == 0:
        return image
    moved, scale = path.image[k - 1].to(image) * image, path.noise[k - 1]
    if eta == 0:
        return moved + scale.to(image) * eps
    if noise is None:
        raise ValueError(f"eta is {eta}, but there is nothing to draw noise from")
    kept, added = split_noise(path.image[k], path.noise[k], path.image[k - 1], scale, eta)
    return moved + kept.to(image) * eps + added.to(image) * noise()


def carry(denoiser: Denoiser, path: RatioPath, x: State) -> State:
    """The images that noise `[n, *shape]` becomes."""
    for state in descend(denoiser, path, x):
        x = state
    return x
