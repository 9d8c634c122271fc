"""What every filter family promises, whatever its file."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import mechbench
from mechbench.errors import ConfigError
from mechbench.filters import families, make_filter
from mechbench.operators.base import operator_options

N, D, P = 2, 3, 50
FAMILIES = ["ckconv", "conv1d", "fno", "hyena", "ssm", "transfer"]


def make(family: str, max_seqlen: int = P, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return make_filter(family, N, D, max_seqlen, options)


def test_the_families_of_the_paper_are_there() -> None:
    assert set(FAMILIES) <= set(families())


@pytest.mark.parametrize("family", families())
@pytest.mark.parametrize("seqlen", [1, 2, 7, P - 1, P])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype(family: str, seqlen: int, dtype: torch.dtype) -> None:
    taps = make(family).to(dtype)(seqlen)
    assert taps.shape == (N, D, seqlen)
    assert taps.dtype == dtype
    assert taps.isfinite().all()


@pytest.mark.parametrize("family", families())
def test_of_a_single_token(family: str) -> None:
    assert make(family, max_seqlen=1)(1).shape == (N, D, 1)


@pytest.mark.parametrize("family", families())
def test_shorter_inputs_see_the_same_first_taps(family: str) -> None:
    released = {"filter_time": "absolute", "filter_norm": "none"}
    filters = make(family, **(released if family in ("ckconv", "hyena") else {})).double()
    for seqlen in (1, 7, P - 1):
        torch.testing.assert_close(filters(seqlen), filters(P)[..., :seqlen], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", families())
def test_same_taps_in_float32_under_autocast(family: str, device: str) -> None:
    filters = make(family).to(device)
    with torch.autocast(device, torch.bfloat16):
        taps = filters(P)
    assert taps.dtype == torch.float32
    assert torch.equal(taps, filters(P))


@pytest.mark.parametrize("family", families())
def test_every_parameter_moves_the_taps(family: str) -> None:
    filters = make(family)
    weight = torch.randn(N, D, P, generator=torch.Generator().manual_seed(1))
    (weight * filters(P)).sum().backward()
    for label, parameter in filters.named_parameters():
        assert parameter.grad.isfinite().all(), label
        assert parameter.grad.abs().max() > 0, label


@pytest.mark.parametrize("family", families())
@pytest.mark.parametrize("variant", ["released", "paper"])
def test_hyena_takes_every_family(family: str, variant: str) -> None:
    torch.manual_seed(0)
    op = mechbench.make_operator("hyena", d_model=4, max_seqlen=20, filter=family, variant=variant)
    op = op.double()
    u = torch.randn(2, 13, 4, dtype=torch.float64)
    v, _ = op.signals(u)
    H = mechbench.materialize(op, u)
    y = op.out_proj((H @ v[..., None])[..., 0].transpose(1, 2))
    torch.testing.assert_close(op(u), y, rtol=1e-9, atol=1e-9)
    assert all(p.optim["weight_decay"] == 0.0 for p in op.filter.parameters())


def test_the_default_family_draws_what_it_always_drew() -> None:
    torch.manual_seed(0)
    op = mechbench.make_operator("hyena", d_model=4, max_seqlen=20)
    torch.manual_seed(0)
    named = mechbench.make_operator("hyena", d_model=4, max_seqlen=20, filter="hyena")
    assert type(op.filter).__name__ == "ImplicitFilter"
    for one, other in zip(op.parameters(), named.parameters(), strict=True):
        assert torch.equal(one, other)
    # As of the version in which there was no other family.
    torch.testing.assert_close(
        op.filter(20)[0, 1, :3] * 20 / 1024,  # since scaled by the length
        torch.tensor([0.0062504709, -0.0202698950, -0.0280283410]),
    )


def test_unknown_family_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown filter 'conv1': did you mean 'conv1d'"):
        make("conv1")


@pytest.mark.parametrize(
    ("family", "options", "refused"),
    [
        ("hyena", {"n_taps": 8}, "n_taps"),
        ("conv1d", {"n_taps": 8, "d_state": 8}, "d_state"),
        ("ckconv", {"fast_decay": 0.1}, "fast_decay"),
        ("fno", {"sine_freq": 1.0}, "sine_freq"),
        ("ssm", {"n_modes": 3}, "n_modes"),
        ("transfer", {"filter_time": "absolute"}, "filter_time"),
    ],
)
def test_option_of_another_family_is_refused(
    family: str, options: dict[str, Any], refused: str
) -> None:
    with pytest.raises(ConfigError, match=f"option '{refused}' has no effect on filter '{family}'"):
        mechbench.make_operator("hyena", d_model=4, max_seqlen=20, filter=family, **options)


def test_hyena_and_the_families_have_the_same_defaults() -> None:
    given = operator_options("hyena", {})
    for family in FAMILIES:
        mechbench.make_operator("hyena", d_model=4, max_seqlen=20, **{**given, "filter": family})
