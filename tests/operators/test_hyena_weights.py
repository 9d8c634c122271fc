from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.hyena import Hyena
from mechbench.operators.hyena_weights import load_released
from operators.fidelity import assert_true_to_source

D, P, W, K = 3, 13, 8, 3
PART = "filter_fn.implicit_filter."


def build(order: int, **options: object) -> Hyena:
    given = {"filter": "released", "filter_width": W, "variant": "gate-first", **options}
    return mechbench.make_operator("hyena", d_model=D, max_seqlen=P, order=order, **given).double()


def weights(order: int) -> dict[str, Tensor]:
    """Random weights by the names and shapes of the released state dict."""
    generator = torch.Generator().manual_seed(order)

    def draw(*shape: int) -> Tensor:
        return 0.5 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    E, N = (order + 1) * D, order - 1
    freq = 1 + draw(1, W)
    slow, fast = math.log(0.01) / 1.5, math.log(0.01) / 0.3
    z = [
        [t / (P - 1), *(f(cmath.exp(-2j * math.pi * b * t / P)) for f in PARTS for b in (1e-4, 1))]
        for t in range(P)
    ]
    return {
        "in_proj.weight": draw(E, D), "in_proj.bias": draw(E),
        "short_filter.weight": draw(E, 1, K), "short_filter.bias": draw(E),
        "out_proj.weight": draw(D, D), "out_proj.bias": draw(D),
        "filter_fn.bias": draw(N * D),
        PART + "0.weight": draw(W, 5), PART + "0.bias": draw(W), PART + "1.freq": freq,
        PART + "2.weight": draw(W, W), PART + "2.bias": draw(W), PART + "3.freq": freq,
        PART + "4.weight": draw(W, W), PART + "4.bias": draw(W), PART + "5.freq": freq,
        PART + "6.weight": draw(N * D, W),
        "filter_fn.pos_emb.z": torch.tensor(z, dtype=torch.float64)[None],
        "filter_fn.modulation.deltas": torch.tensor(
            [slow + (fast - slow) * c / (N * D - 1) for c in range(N * D)], dtype=torch.float64
        )[None, None],
    }  # fmt: skip


PARTS = (lambda z: z.real, lambda z: z.imag)


def by_hand(w: dict[str, Tensor], u: Tensor, order: int) -> Tensor:
    """Return the released operator's output for u (L, D), by sums over positions."""
    L, N = len(u), order - 1
    p = u @ w["in_proj.weight"].T + w["in_proj.bias"]
    short = []
    for t in range(L):
        row = w["short_filter.bias"]
        for k in range(K):
            if t - (K - 1) + k >= 0:
                row = row + w["short_filter.weight"][:, 0, k] * p[t - (K - 1) + k]
        short.append(row)
    *x, v = torch.stack(short).split(D, -1)
    h = w["filter_fn.pos_emb.z"][0]
    for n in (0, 2, 4):
        h = torch.sin(w[PART + "1.freq"] * (h @ w[f"{PART}{n}.weight"].T + w[f"{PART}{n}.bias"]))
    h = h @ w[PART + "6.weight"].T
    t = torch.arange(P, dtype=torch.float64)[:, None] / (P - 1)
    h = h * torch.exp(-t * w["filter_fn.modulation.deltas"][0].abs())  # (P, D N)
    for n in range(N):
        v = v * x[N - n]
        rows = []
        for t in range(L):
            row = w["filter_fn.bias"][n::N] * v[t]
            for s in range(t + 1):
                row = row + h[t - s, n::N] * v[s]
            rows.append(row)
        v = torch.stack(rows)
    return (v * x[0]) @ w["out_proj.weight"].T + w["out_proj.bias"]


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("L", [1, 7, P])
def test_loaded_weights_compute_what_the_released_operator_does(order: int, L: int) -> None:
    op, w = build(order), weights(order)
    load_released(op, w)
    u = torch.randn(L, D, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    u, other = u.requires_grad_(), u.detach().clone().requires_grad_()
    y, expected = op(u[None])[0], by_hand(w, other, order)
    assert_true_to_source(op, y, expected, "filter=released")
    y.square().sum().backward()
    expected.square().sum().backward()
    assert_true_to_source(op, u.grad, other.grad, "filter=released")


def test_gradients_of_the_weights_agree() -> None:
    op, w = build(3), weights(3)
    load_released(op, w)
    w = {name: x.requires_grad_("pos_emb" not in name) for name, x in w.items()}
    u = torch.randn(P, D, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    op(u[None]).square().sum().backward()
    by_hand(w, u, 3).square().sum().backward()
    pairs = [
        (op.in_proj.weight.grad, torch.cat(w["in_proj.weight"].grad.chunk(4)[::-1])),
        (op.skip.grad, w["filter_fn.bias"].grad.view(D, 2).T),
        (op.filter.sine.freq.grad, w[PART + "1.freq"].grad[0]),
        (op.filter.last.weight.grad, w[PART + "6.weight"].grad),
        (op.filter.inner[0].weight.grad, w[PART + "0.weight"].grad),
    ]
    for found, expected in pairs:
        assert_true_to_source(op, found, expected, "filter=released")


def test_weights_that_do_not_fit_are_refused_in_one_line() -> None:
    w = weights(2)
    with pytest.raises(ConfigError, match="fit variant 'released' with filter 'released' only"):
        load_released(build(2, filter="hyena"), w)
    with pytest.raises(ConfigError, match=r"lack 'in_proj\.bias'"):
        load_released(build(2), {k: x for k, x in w.items() if k != "in_proj.bias"})
    with pytest.raises(ConfigError, match="do not fit: "):
        load_released(build(2), {**w, "out_proj.weight": torch.zeros(2, 2)})
    for name in ("filter_fn.pos_emb.z", "filter_fn.modulation.deltas"):
        with pytest.raises(ConfigError, match=f"{name} is not what the operator computes"):
            load_released(build(2), {**w, name: w[name] + 0.1})


def test_both_names_of_the_variant_are_one_stored_configuration() -> None:
    from mechbench.operators.base import operator_options

    one, other = ({"variant": name} for name in ("gate-first", "released"))
    assert operator_options("hyena", one) == operator_options("hyena", other)
    assert operator_options("hyena", one) == operator_options("hyena", {})
