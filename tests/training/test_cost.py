from __future__ import annotations

import copy
import itertools
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from mechbench.bench.readings import count_flops
from mechbench.catalogue.registry import OPERATORS
from mechbench.ops import fft_conv
from mechbench.training import cost
from mechbench.training.cost import FlopsBeside, flops_per_token
from mechbench.training.model import Backbone

V, D, L = 12, 16, 32


class Tokens(nn.Module):
    """An embedding, layers and a head."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Embedding(V, D), *layers, nn.Linear(D, V))

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.layers(tokens)
        return logits


class Conv(nn.Module):
    """One long convolution over all D channels."""

    def __init__(self, seqlen: int) -> None:
        super().__init__()
        self.h = nn.Parameter(torch.ones(D, seqlen))

    def forward(self, u: Tensor) -> Tensor:
        return fft_conv(u.transpose(1, 2), self.h).transpose(1, 2)


def backbone(operator: str, seqlen: int, **options: object) -> Backbone:
    return Backbone(operator, options, vocab_size=V, d_model=D, n_layers=1, max_seqlen=seqlen)


def test_matrix_products_count_twice_their_size_forward_and_twice_that_backward() -> None:
    found = flops_per_token(Tokens(nn.Linear(D, 4 * D), nn.Linear(4 * D, D)), L)
    assert found == 6 * (D * 4 * D + 4 * D * D + D * V)


def test_cost_of_matrix_products_does_not_depend_on_the_length() -> None:
    model = Tokens(nn.Linear(D, D))
    assert flops_per_token(model, 8) == flops_per_token(model, 800)


def test_attention_grows_with_the_length_by_its_scores_alone() -> None:
    costs = [flops_per_token(backbone("attention", n), n) for n in (64, 128, 256, 512)]
    steps = [b - a for a, b in itertools.pairwise(costs)]
    assert steps[1] == pytest.approx(2 * steps[0])
    assert steps[2] == pytest.approx(4 * steps[0])
    # q k^T and its product with v: 4 D a pair of positions forward, 8 D backward, half of them seen
    assert steps[0] == 12 * D * 64 / 2


def test_long_convolution_counts_its_transforms() -> None:
    n = 2 * L  # padded
    whole, plain = flops_per_token(Tokens(Conv(L)), L), flops_per_token(Tokens(), L)
    a_transform = 2.5 * n * math.log2(n) * D
    # forward: of u, of h, back; backward: of dy, u, h and back to du, dh
    assert (whole - plain) * L == pytest.approx(8 * a_transform, rel=1e-6)


def test_hyena_costs_less_than_attention_where_sequences_are_long() -> None:
    hyena, attention = (flops_per_token(backbone(n, 8192), 8192) for n in ("hyena", "attention"))
    assert hyena < attention / 4


def test_model_stays_as_it_is() -> None:
    model = backbone("hyena", L)
    before = {name: p.clone() for name, p in model.named_parameters()}
    assert flops_per_token(model, L) > 0
    for name, parameter in model.named_parameters():
        assert parameter.device.type == "cpu"
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])


@pytest.mark.parametrize("n_heads", [1, 2])
def test_causal_half_of_attention_counts_and_all_of_what_is_multiplied_by_hand(
    n_heads: int,
) -> None:
    found = {
        name: flops_per_token(backbone(name, L, n_heads=n_heads), L)
        for name in ("attention", "eager-attention")
    }
    assert found["eager-attention"] - found["attention"] == 12 * D * L / 2


def test_attention_that_forgets_counts_its_products_once_up_to_the_query_and_its_chunk() -> None:
    name, n = "forgetting-attention", 1024
    found, linear = (
        count_flops(backbone(name, n).blocks[0].operator, (1, n, D), backward=True) for n in (n, 1)
    )
    assert found is not None
    assert linear is not None
    pairs = n * (n + 128) / 2  # of queries and keys, to the end of a chunk of 128
    assert found == pytest.approx(n * (linear - 12 * D) + 12 * D * pairs, rel=1e-9)


@pytest.mark.parametrize("operator", OPERATORS.names())
def test_the_bench_counts_a_mixer_as_a_model_does(operator: str) -> None:
    model = Backbone(operator, {}, vocab_size=V, d_model=D, n_layers=2, max_seqlen=L)
    without = copy.deepcopy(model)
    without.blocks[1].operator = nn.Identity()
    alone = count_flops(model.blocks[1].operator, (1, L, D), backward=True)
    assert alone == cost._count(model, L, 0) - cost._count(without, L, 0)
    assert alone > 0


class NeedsData(nn.Module):
    def forward(self, u: Tensor) -> Tensor:
        return u * float(u.abs().max())


def test_operator_that_reads_its_data_has_no_known_cost() -> None:
    assert flops_per_token(Tokens(NeedsData()), L) is None


def test_a_model_of_numbers_has_a_cost() -> None:
    model = Backbone(
        "attention", {}, vocab_size=2, d_model=D, n_layers=1, max_seqlen=L, input_dim=3
    )
    found = flops_per_token(model, L, 3)
    assert found is not None
    assert found > flops_per_token(Tokens(), L)


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the blocks that each count walks through."""
    blocks = []

    def count(model: Backbone, *args: int) -> int:
        blocks.append(len(model.blocks))
        return whole(model, *args)

    whole = cost._count
    monkeypatch.setattr(cost, "_count", count)
    monkeypatch.setattr(cost, "_counted", {})
    return blocks


@pytest.mark.parametrize(
    ("operator", "n_layers"),
    [*((name, 3) for name in OPERATORS.names()), ("hybrid", 2), ("hybrid", 4), ("hyena", 2)],
)
def test_counting_each_kind_of_block_once_is_counting_all(
    operator: str, n_layers: int, walked: list[int]
) -> None:
    model = Backbone(operator, {}, vocab_size=V, d_model=D, n_layers=n_layers, max_seqlen=L)
    assert flops_per_token(model, L) == cost._count(model, L, 0) / L
    kinds = min(2, n_layers) if operator == "hybrid" else 1
    walked.pop()
    assert walked == ([n_layers] if kinds == n_layers else [0] + [1] * kinds)
    assert len(model.blocks) == n_layers


def test_equal_models_are_counted_once(walked: list[int]) -> None:
    found = [flops_per_token(backbone("attention", L), L) for _ in range(3)]
    assert walked == [1]
    assert len(set(found)) == 1
    assert flops_per_token(backbone("attention", 2 * L), 2 * L) > found[0]
    walked.clear()
    for _ in range(2):  # what cannot be compared is counted anew
        model = backbone("attention", L)
        model.blocks[0].operator.rows = object()
        assert flops_per_token(model, L) == found[0]
    assert walked == [1] * 2


def test_a_model_that_holds_itself_has_no_known_cost() -> None:
    model = backbone("attention", L)
    model.blocks[0].operator.held = held = []
    held.append(held)
    assert flops_per_token(model, L) is None


def test_a_pattern_of_three_is_three_kinds(walked: list[int]) -> None:
    options = {"pattern": "hyena,attention,s4d,attention"}
    model = Backbone("hybrid", options, vocab_size=V, d_model=D, n_layers=9, max_seqlen=L)
    assert flops_per_token(model, L) == cost._count(model, L, 0) / L
    assert walked == [0, 1, 1, 1, 9]


def test_blocks_that_differ_in_what_they_hold_are_walked_all(walked: list[int]) -> None:
    model = backbone("attention", L)
    other = backbone("attention", L)
    model.blocks.extend(other.blocks)
    model.blocks.extend(backbone("attention", L).blocks)
    model.blocks[1].operator.layer = 1  # an operator may do another thing in each layer
    model.blocks[2].operator.rows = object()
    found = flops_per_token(model, L)
    assert walked == [3]
    assert found == cost._count(model, L, 0) / L


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_counted", {})


@pytest.mark.usefixtures("uncounted")
@pytest.mark.parametrize("seqlen", [L, 2101])
@pytest.mark.parametrize("training_device", ["cpu", "cuda"])
def test_counting_beside_gives_the_same_number(seqlen: int, training_device: str) -> None:
    model = backbone("hyena", seqlen)
    usual = sys.getswitchinterval()
    counted = FlopsBeside(model, seqlen, 0, training_device)
    with torch.no_grad():  # what training does meanwhile changes nothing
        model.head.weight.zero_()
    assert counted.result() == counted.result() == flops_per_token(model, seqlen)
    assert sys.getswitchinterval() == usual


@pytest.mark.parametrize("operator", [n for n in OPERATORS.names() if ":" not in n])
def test_computed_on_the_cpu_an_operator_costs_as_much(
    operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for computed in (True, False):
        monkeypatch.setattr(cost, "_counted", {})
        found.append(flops_per_token(backbone(operator, L), L, computed=computed))
    assert found[0] == found[1]


@pytest.mark.usefixtures("uncounted")
def test_a_backend_that_is_named_costs_what_auto_costs() -> None:
    """Even where the named one multiplies matrices, or is for GPUs alone."""
    found = flops_per_token(backbone("hyena", L, backend="toeplitz"), L, computed=True)
    assert found == flops_per_token(backbone("hyena", L), L, computed=False)


@pytest.mark.parametrize("training_device", ["cpu", "cuda"])
def test_kernels_of_others_are_not_launched_where_they_would_write_anywhere(
    training_device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    @contextmanager
    def noticed() -> Iterator[None]:
        told.append("withheld")
        yield

    monkeypatch.setattr(cost, "_counted", {})
    monkeypatch.setattr(cost, "withheld", noticed)
    FlopsBeside(backbone("attention", L), L, 0, training_device).result()
    assert not told
    FlopsBeside(Tokens(nn.Linear(D, D)), L, 0, training_device).result()
    assert told


def test_what_needs_a_gpu_or_draws_is_counted_and_leaves_no_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Drawing(nn.Linear):
        def forward(self, u: Tensor) -> Tensor:
            if u.device.type == "cpu":
                torch.rand(1)
                raise RuntimeError("kernels for GPUs alone")
            return super().forward(u)

    monkeypatch.setattr(cost, "_counted", {})
    model = Tokens(Drawing(D, D))
    before = torch.get_rng_state()
    assert flops_per_token(model, L, computed=True) == 6 * (D * D + D * V)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("training_device", ["cpu", "cuda"])
def test_what_cannot_be_copied_has_no_count(training_device: str) -> None:
    class Fixed(Tokens):
        def __deepcopy__(self, memo: object) -> Fixed:
            raise TypeError

    assert FlopsBeside(Fixed(), 2101, 0, training_device).result() is None


@pytest.mark.usefixtures("uncounted")
def test_what_is_not_the_package_s_is_never_computed_for_a_gpu() -> None:
    """Its kernels might be a GPU's, and would take the CPU's memory for theirs."""
    devices = []

    class Noting(nn.Linear):
        def forward(self, u: Tensor) -> Tensor:
            devices.append(u.device.type)
            return super().forward(u)

    assert FlopsBeside(Tokens(Noting(D, D)), L, 0, "cuda").result()
    assert set(devices) == {"meta"}
