from __future__ import annotations

from typing import Any

import pytest
import torch

from mechbench.catalogue.registry import OPERATORS
from mechbench.errors import SeqlenError
from mechbench.training.model import Backbone

V, D, L = 11, 8, 20
NAMES = [n for n in OPERATORS.names() if OPERATORS.entry(n).origin == "built-in"]


def build(
    operator: str = "hyena", n_layers: int = 2, short_conv: int = 0, **options: Any
) -> Backbone:
    torch.manual_seed(0)
    return Backbone(
        operator, options, vocab_size=V, d_model=D, n_layers=n_layers, max_seqlen=L,
        short_conv=short_conv,
    )  # fmt: skip


def tokens() -> torch.Tensor:
    return torch.randint(V, (3, L), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("operator", "taps"), [*((n, 0) for n in NAMES), ("hyena", 4), ("attention", 1), ("aft", 2 * L)]
)
def test_gives_causal_logits_and_a_gradient_for_every_parameter(operator: str, taps: int) -> None:
    model, x = build(operator, short_conv=taps).double(), tokens()
    logits = model(x)
    assert logits.shape == (3, L, V)
    changed = x.clone()
    changed[:, L // 2 :] = (changed[:, L // 2 :] + 1) % V
    assert (model(changed) - logits)[:, : L // 2].abs().max() < 1e-10
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_is_pre_norm_with_an_mlp_of_four_widths() -> None:
    model, x = build(), tokens()
    z = model.embed(x)
    for block in model.blocks:
        assert block.up.out_features == 4 * D
        z = z + block.operator(block.norm1(z))
        z = z + block.down(torch.nn.functional.gelu(block.up(block.norm2(z))))
    torch.testing.assert_close(model.head(model.norm(z)), model(x))


def test_options_layers_and_max_seqlen_reach_the_operators() -> None:
    model = build(n_layers=3, order="3", filter_norm="l1")
    assert [block.operator.order for block in model.blocks] == [3, 3, 3]
    assert model.blocks[0].operator.filter.norm == "l1"
    with pytest.raises(SeqlenError):
        model(torch.zeros(1, L + 1, dtype=torch.int64))


def test_blocks_do_not_share_parameters() -> None:
    one, two = build().blocks
    assert not torch.equal(one.operator.in_proj.weight, two.operator.in_proj.weight)


def test_numbers_go_through_a_linear_map_and_one_number_comes_out() -> None:
    torch.manual_seed(0)
    model = Backbone("hyena", {}, vocab_size=V, d_model=D, n_layers=1, max_seqlen=L, input_dim=3)
    outputs = model(torch.randn(2, L, 3))
    assert outputs.shape == (2, L, 1)
    outputs.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("taps", [1, 4, 2 * L])
def test_short_convolution_of_each_channel_is_added_to_the_operators_input(taps: int) -> None:
    block = build("attention", short_conv=taps).double().blocks[0]
    reached: list[torch.Tensor] = []
    block.operator.register_forward_pre_hook(lambda _, args: reached.append(args[0]))
    x = torch.randn(2, L, D, dtype=torch.float64)
    block(x, None)
    u, h, b = block.norm1(x), block.short_conv.weight, block.short_conv.bias
    expected = torch.zeros_like(u)
    for t in range(L):
        for lag in range(min(taps, t + 1)):
            expected[:, t] += h[:, lag] * u[:, t - lag]
    torch.testing.assert_close(reached[0], u + expected + b)


def test_short_convolution_has_its_taps_and_a_bias_a_channel() -> None:
    def size(model: Backbone) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    assert size(build(short_conv=4)) - size(build()) == 2 * D * (4 + 1)


def test_without_a_short_convolution_the_model_is_as_it_always_was() -> None:
    names = build().state_dict().keys()
    assert not any("short_conv" in name for name in names)
    model = build(short_conv=4)
    assert names < model.state_dict().keys()
    bound = 4**-0.5
    for block in model.blocks:
        for weight in block.short_conv.parameters():
            assert bound / 2 < weight.abs().max() <= bound
