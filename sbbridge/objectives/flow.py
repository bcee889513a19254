"""Flow matching along straight lines (Lipman et al. 2023; Liu et al. 2023; Tong et al. 2024)."""

from sbbridge.objectives.base import Regression
from sbbridge.types import State, Time, expand_like


def flow_matching(t: Time, x0: State, x1: State) -> Regression:
    """Fit v(t, x_t) to x1 − x0 at x_t = (1 − t) x0 + t x1; the minimiser is E[x1 − x0 | x_t].

    Its ODE carries the law of x1 at t = 1 to that of x0 at t = 0 for any coupling.
    """
    share = expand_like(t, x0)
    return Regression(t, (1 - share) * x0 + share * x1, x1 - x0)
