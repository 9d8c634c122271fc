"""Diagonal state spaces: taps as a sum of damped oscillations.

    x' = A x + B u, y = C x, A diagonal and complex, B = 1, discretised with a zero-order hold:
    h_t = 2 Re sum_n C_n (exp(dt A_n) - 1) / A_n exp(t dt A_n),   n < d_state / 2

Source: Gu et al. 2022 (arXiv:2206.11893), S4D, section 3 (kernel) and section 4 (S4D-Lin:
A_n = -1/2 + i pi n). The Hyena paper's `H3` filter (appendix A.1) is S4 with d_state 64; S4D is
its diagonal form. Conjugate pairs are folded, so d_state counts real dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mechbench.catalogue.registry import register_filter
from mechbench.catalogue.settings import check_options
from mechbench.errors import ConfigError

_SSM_LR = 1e-3  # learning rate of A and dt, as in the source


def vandermonde(weight: Tensor, rate: Tensor, seqlen: int) -> Tensor:
    """Return 2 Re sum_n weight_n exp(rate_n t) for t = 0 .. seqlen - 1.

    With t = c i + j, the sum is a product of two small Vandermonde matrices: O(N sqrt(L) + L)
    memory instead of O(N L).

    Args:
        weight: (..., N), complex.
        rate: (..., N), complex, with a real part of at most 0.
        seqlen: L.

    Returns:
        (..., L), real.
    """
    c = math.isqrt(seqlen - 1) + 1
    rows = -(-seqlen // c)
    j = torch.arange(max(c, rows), device=rate.device)
    fine = torch.exp(rate[..., None] * j[:c])  # (..., N, c)
    coarse = weight[..., None] * torch.exp(rate[..., None] * (c * j[:rows]))  # (..., N, rows)
    left = torch.cat([coarse.real, -coarse.imag], -2)  # (..., 2 N, rows)
    right = torch.cat([fine.real, fine.imag], -2)  # (..., 2 N, c)
    return 2 * (left.transpose(-1, -2) @ right).flatten(-2)[..., :seqlen]


class SSMFilter(nn.Module):
    """The filter of the module docstring, one state space per channel.

    Args:
        n_filters: N, long convolutions in the operator.
        d_model: D, channels.
        max_seqlen: longest filter, in taps.
        d_state: real dimensions of a channel's state; even.
        dt_min: smallest initial time step.
        dt_max: largest initial time step; steps are drawn log-uniformly between the two.

    Raises:
        ConfigError: d_state odd or below 2, or dt_min not between 0 and dt_max.
    """

    def __init__(
        self,
        n_filters: int,
        d_model: int,
        max_seqlen: int,
        *,
        d_state: int = 64,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
    ) -> None:
        super().__init__()
        check_options(dt_min=dt_min, dt_max=dt_max)
        if d_state < 2 or d_state % 2:
            raise ConfigError(f"d_state is {d_state}: expected an even number of at least 2")
        if not 0 < dt_min <= dt_max:
            raise ConfigError(f"dt_min is {dt_min}: expected between 0 and dt_max ({dt_max})")
        check_options(d_state=d_state)
        shape, modes = (n_filters, d_model), d_state // 2
        low, high = math.log(dt_min), math.log(dt_max)
        self.log_dt = nn.Parameter(torch.empty(*shape).uniform_(low, high))
        self.log_decay = nn.Parameter(torch.full((*shape, modes), math.log(0.5)))  # log -Re A
        self.turn = nn.Parameter(math.pi * torch.arange(modes).float().expand(*shape, modes) + 0.0)
        # Real and imaginary parts, so that .double() and optimizers see real numbers.
        self.C = nn.Parameter(0.5**0.5 * torch.randn(*shape, modes, 2))
        for parameter in self.parameters():
            parameter.optim = {"lr": _SSM_LR, "weight_decay": 0.0}  # type: ignore[attr-defined]
        self.C.optim = {"weight_decay": 0.0}  # type: ignore[attr-defined]

    def forward(self, seqlen: int) -> Tensor:
        """Return the taps: (N, D, seqlen), float32 or wider, also under autocast."""
        with torch.autocast("cuda" if self.C.is_cuda else "cpu", enabled=False):
            A = torch.complex(-self.log_decay.exp(), self.turn)  # (N, D, modes)
            rate = A * self.log_dt.exp()[..., None]
            weight = torch.view_as_complex(self.C) * (rate.exp() - 1) / A
            return vandermonde(weight, rate, seqlen)


@register_filter("ssm", source="Gu et al. 2022 (arXiv:2206.11893), section 3, S4D-Lin")
def ssm(n_filters: int, d_model: int, max_seqlen: int, *, d_state: int = 64) -> SSMFilter:
    """One diagonal state space per channel (S4D).

    Args:
        n_filters: N, long convolutions in the operator.
        d_model: D, channels.
        max_seqlen: longest filter, in taps.
        d_state: real dimensions of a channel's state; even. The range of time steps is not an
            option, because it would become part of the cell id of every stored Hyena result.

    Raises:
        ConfigError: d_state odd or below 2.
    """
    return SSMFilter(n_filters, d_model, max_seqlen, d_state=d_state)
