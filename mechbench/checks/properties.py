"""The three properties of attention that Poli et al. 2023 name in section 1, measured.

Data control: the map from values to outputs depends on the input. Sublinear parameter scaling: the
number of parameters does not grow with the length as fast as the length. Unrestricted context: an
output depends on inputs at any distance.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from mechbench.checks.subject import Finding, Subject, judged

_CONTROL_SEQLEN = 32  # of the materialised maps
_ROWS = 32  # random rows of a Jacobian
_LENGTHS = (1, 2, 4, 8)  # times seqlen
_SUBLINEAR = 0.95  # exponent; 1 is linear
_FAR_SHARE = 0.01  # of the gradient, beyond half the length
_NOTHING = 1e-7  # of the largest gradient: what rounding leaves of zero


def properties(subject: Subject) -> list[Finding]:
    """Return a finding for each property: "yes" or "no", and the figure behind it."""
    return [
        judged("data control", lambda: data_control(subject)),
        judged("sublinear parameters", lambda: parameter_scaling(subject)),
        judged("unrestricted context", lambda: context(subject)),
    ]


def data_control(subject: Subject) -> Finding:
    """Measure how much the linear map from values to outputs differs between two inputs."""
    module, dtype = subject.exact()
    L = min(subject.seqlen, _CONTROL_SEQLEN)
    maps = []
    for label in ("u", "other"):
        u = subject.inputs(1, L, label=label, dtype=dtype)
        maps.append(_map(module, u, subject.seed))
    size = math.sqrt(float(sum(m.square().sum() for m in maps)) / 2)
    change = float((maps[0] - maps[1]).norm()) / max(size, 1e-30)
    how = "mixing_matrix" if hasattr(module, "mixing_matrix") else f"{_ROWS} rows of the Jacobian"
    has = change > (1e-6 if dtype == torch.float64 else 1e-3)
    text = f"the map changes by {change:.3g} of its norm between two inputs ({how})"
    return Finding("data control", "yes" if has else "no", text, {"change": change, "how": how})


def _map(module: nn.Module, u: Tensor, seed: int) -> Tensor:
    """Return H(u) if the operator tells it, else random rows of its Jacobian at u."""
    if hasattr(module, "mixing_matrix"):
        with torch.no_grad():
            H: Tensor = module.mixing_matrix(u)  # type: ignore[operator]
        return H
    u = u.requires_grad_()
    y = module(u)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(_ROWS):
        weight = torch.randn(y.shape, generator=generator).to(y.device, y.dtype)
        rows.append(torch.autograd.grad(y, u, weight, retain_graph=True)[0])
    return torch.stack(rows)


def parameter_scaling(subject: Subject) -> Finding:
    """Measure the exponent with which parameters are added as the length doubles."""
    lengths = [n * subject.seqlen for n in _LENGTHS]
    counts = [sum(p.numel() for p in subject.build(L).parameters()) for L in lengths]
    exponent = growth_exponent(counts)
    told = ", ".join(f"{c:,}" for c in counts)
    text = f"L^{exponent:.2f}: {told} at L {lengths[0]} to {lengths[-1]}"
    value = {"exponent": exponent, "seqlens": lengths, "parameters": counts}
    verdict = "yes" if exponent < _SUBLINEAR else "no"
    return Finding("sublinear parameters", verdict, text, value)


def growth_exponent(counts: list[int]) -> float:
    """Return e of counts = a + b L^e at lengths that double, from the increments: free of a."""
    added = [b - a for a, b in itertools.pairwise(counts)]
    if added[-1] <= 0:
        return 0.0
    ratios = [b / a for a, b in itertools.pairwise(added) if a > 0]
    # All that was added came at once: as steep as the last doubling allows.
    return max(0.0, math.log2(sum(ratios) / len(ratios))) if ratios else float(len(added))


def context(subject: Subject) -> Finding:
    """Measure how far back the gradient of the last output reaches, as initialised."""
    norms = reach(subject.module(), subject.inputs(8, subject.seqlen), subject.seed)
    L = len(norms)
    farthest = int((norms > _NOTHING * norms.max()).nonzero().max())
    far, width = float(norms[(L + 1) // 2 :].sum() / norms.sum()), effective_context(norms)
    text = (
        f"{far:.2%} of the gradient beyond L/2 (at least {_FAR_SHARE:.0%}); 95% within the last "
        f"{width} of {L}"
    )
    if farthest < L - 1:
        text += f", none beyond {farthest + 1}"
    value = {"far_share": far, "effective_context_tokens": width, "farthest": farthest, "seqlen": L}
    return Finding("unrestricted context", "yes" if far >= _FAR_SHARE else "no", text, value)


def reach(module: nn.Module, u: Tensor, seed: int = 0) -> Tensor:
    """Return how strongly the last output depends on each distance, (L,), distance 0 first.

    The norm of the gradient of a random projection of the last output, a mean over the examples.

    Args:
        module: operator.
        u: (B, L, D).
        seed: of the projections.
    """
    u = u.detach().requires_grad_()
    last = module(u)[:, -1]  # (B, D)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(last.shape, generator=generator).to(last.device, last.dtype)
    (gradient,) = torch.autograd.grad(last, u, weight)
    norms: Tensor = gradient.double().norm(dim=-1).mean(0).flip(0).cpu()
    return norms


def effective_context(norms: Tensor, share: float = 0.95) -> int:
    """Return the smallest W such that the last W positions hold `share` of the norms."""
    held = norms.cumsum(0) / norms.sum()
    return int((held < share).sum()) + 1
