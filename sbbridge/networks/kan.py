"""Kolmogorov–Arnold layers: pykan's, tamed, and the layout of LDSB's released checkpoints."""

from typing import Any, final

import torch
from torch import Tensor, nn

from sbbridge.rng import isolated, undisturbed

ORDER = 3
"""Of the splines."""


def pykan(widths: tuple[int, ...], grid_size: int, seed: int) -> nn.Module:
    """pykan's KAN with splines on [0, 1], which it keeps: its adaptive grids break on the few inputs of a path.

    Its constructor seeds three global generators, changes the list of widths that it is given, and would write files.
    """
    from kan import KAN  # seconds to import

    with isolated(seed), undisturbed():
        kan: Any = KAN(width=list(widths), grid=grid_size, k=ORDER, grid_range=[0, 1], seed=seed, auto_save=False)
    kan.speed()
    module: nn.Module = kan
    for name, weight in module.named_parameters():
        if name.startswith("symbolic_fun"):  # switched off by speed(): they would never get a gradient
            weight.requires_grad_(False)
    return module


@final
class EfficientKANLayer(nn.Module):
    """out_j = sum_i w_ji SiLU(x_i) + s_ji sum_m c_jim B_m(x_i), cubic B-splines on uniform knots over [0, 1].

    Parameters and buffers have the names and shapes of LDSB's released files: base_weight and spline_scaler
    `[out, in]`, spline_weight `[out, in, grid_size + 3]`, grid `[in, grid_size + 7]`.
    """

    grid: Tensor

    def __init__(self, inputs: int, outputs: int, grid_size: int) -> None:
        super().__init__()
        knots = torch.arange(-ORDER, grid_size + ORDER + 1, dtype=torch.get_default_dtype()) / grid_size
        self.register_buffer("grid", knots.expand(inputs, -1).clone())
        self.base_weight = nn.Parameter(torch.empty(outputs, inputs))
        self.spline_weight = nn.Parameter(torch.empty(outputs, inputs, grid_size + ORDER))
        self.spline_scaler = nn.Parameter(torch.empty(outputs, inputs))
        for weight in (self.base_weight, self.spline_scaler):
            nn.init.kaiming_uniform_(weight, a=5**0.5)
        # coefficients of splines that are all but 0: noise of ±0.05 / grid_size
        nn.init.uniform_(self.spline_weight, -0.05 / grid_size, 0.05 / grid_size)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, in]` -> `[n, out]`."""
        base = nn.functional.silu(x) @ self.base_weight.mT
        weight = self.spline_weight * self.spline_scaler[..., None]
        return base + torch.einsum("nim,oim->no", self.bases(x), weight)

    def bases(self, x: Tensor) -> Tensor:
        """B_m(x_i), `[n, in, grid_size + 3]`: the cardinal cubic spline around the knot in the middle of its support.

        beta(d) = 2/3 − d^2 + |d|^3 / 2 for |d| < 1, (2 − |d|)^3 / 6 for 1 <= |d| < 2, d in knots (de Boor 1978).
        """
        centres = self.grid[:, 2:-2]
        spacing = (self.grid[:, -1] - self.grid[:, 0])[:, None] / (self.grid.shape[1] - 1)
        d = ((x[:, :, None] - centres) / spacing).abs()
        inner = 2 / 3 - d**2 + d**3 / 2
        outer = (2 - d).clamp(min=0) ** 3 / 6
        return torch.where(d < 1, inner, outer)
