"""LDSB's sampler: deterministic steps along a path x_k = a_k x0 + b_k eps of its own (LDSB, Sec. 3)."""

from collections.abc import Iterator

from sbbridge.path import Denoiser, RatioPath
from sbbridge.types import State


def descend(denoiser: Denoiser, path: RatioPath, x: State) -> Iterator[State]:
    """States after each of the path's N steps, the last of them x0hat of node 0.

    x_{k−1} = a_{k−1} x̃_k + b_{k−1} epshat_k with (x0hat_k, epshat_k) the denoiser's estimates at x_k and time t_k, and
    x̃_k = x0hat_k + c_k (x0hat_k − x0hat_{k+1}) where the path has momentum. N network calls a sample.

    Args:
        denoiser: that the path was fitted for.
        path: its nodes, a, b, c; may carry gradients.
        x: noise at node N − 1, `[n, *shape]`.

    Raises:
        ValueError: the path starts at a = 0, and the denoiser predicts noise.
    """
    denoiser.require_image(path.image)
    before: State | None = None
    for k in reversed(range(len(path))):
        image, noise = denoiser.estimates(path.times[k], x, path.image[k], path.noise[k])
        used = image
        if path.momentum is not None and before is not None:
            used = image + path.momentum[k].to(x) * (image - before)
        before = image
        x = path.image[k - 1].to(x) * used + path.noise[k - 1].to(x) * noise if k else used
        yield x


def carry(denoiser: Denoiser, path: RatioPath, x: State) -> State:
    """The images that noise `[n, *shape]` becomes."""
    for state in descend(denoiser, path, x):
        x = state
    return x
