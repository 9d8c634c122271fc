from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.data.baselines import required_context
from mechbench.errors import SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch
from mechbench.tasks.icl_functions import IclFunctions
from mechbench.training.cell import run

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 5, "seqlen": 32},
    {"vocab_size": 20, "seqlen": 82},
)


def draw(task: IclFunctions, n: int, seed: int = 0) -> Batch:
    return task.sample(n, torch.Generator().manual_seed(seed))


@given(d=st.integers(1, 8), more=st.integers(1, 12), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(d: int, more: int, seed: int) -> None:
    n = d + more
    task = IclFunctions(d, 2 * n)
    batch = draw(task, 4, seed)
    x, y = batch.inputs[:, 0::2, :d], batch.inputs[:, 1::2, d]
    assert (batch.inputs[:, 0::2, d] == 0).all()
    assert (batch.inputs[:, 1::2, :d] == 0).all()
    assert torch.equal(x * 4096, (x * 4096).round())
    everything = torch.cat([y, batch.targets[:, -1:]], 1).double()
    # One w explains all points, also those that are too few to tell it.
    w = torch.linalg.lstsq(x.double(), everything[..., None], driver="gelsd").solution
    torch.testing.assert_close((x.double() @ w)[..., 0], everything, rtol=1e-5, atol=1e-5)
    assert (batch.targets[:, :-1] == IGNORE).all()
    dense = torch.full_like(batch.targets, float(IGNORE))
    dense[:, 2 * d :: 2] = everything[:, d:].float()
    assert torch.equal(batch.dense_targets, dense)


def test_x_is_standard_normal_and_y_has_unit_variance() -> None:
    batch = draw(IclFunctions(4, 20), 20_000)
    x, y = batch.inputs[:, 0::2, :4].flatten(), batch.targets[:, -1]
    quantiles = torch.distributions.Normal(0, 1).cdf(x[:100_000]).sort().values
    uniform = (torch.arange(100_000) + 0.5) / 100_000
    assert (quantiles - uniform).abs().max() < 0.01
    assert abs(y.mean()) < 0.03
    assert abs(y.var() - 1) < 0.05


def test_oracle_needs_as_many_points_as_dimensions() -> None:
    task = IclFunctions(3, 20)
    batch = draw(task, 16)
    for points, told in ((2, False), (3, True)):
        guess = task.oracle(batch.inputs[:, -2 * points - 1 :])[:, -1]
        right = (guess - batch.targets[:, -1]).abs() < 0.01
        assert right.all() if told else (guess == UNKNOWN).all()


def test_required_context_grows_until_the_points_suffice() -> None:
    task = IclFunctions(10, 80)
    found = required_context(task, draw(task, 2000))
    # Seven points of ten dimensions leave a variance of about 0.3: |error| <= 0.1 in 15 percent.
    assert task.chance + 0.02 < found[16] < 0.3
    assert found[32] == 1.0
    assert found[79] == 1.0


def test_averaging_approaches_the_weights_where_points_are_many() -> None:
    task = IclFunctions(1, 4000)
    batch = draw(task, 200)
    guess = task.shortcuts["averaging"](batch.inputs)[:, -1]
    assert ((guess - batch.targets[:, -1]).abs() < 0.1).float().mean() > 0.8


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"seqlen": 10}, "seqlen is 10: .* 5 dimensions .* at least 12; the nearest is 12"),
        ({"seqlen": 33}, "the nearest is 34"),
    ],
)
def test_bad_parameters_raise(given: dict[str, Any], says: str) -> None:
    with pytest.raises(SeqlenError, match=says):
        IclFunctions(**{"vocab_size": 5, "seqlen": 32, **given})


def test_a_run_learns_from_numbers(tmp_path: Path) -> None:
    result = run(
        "attention", "icl-functions", out=tmp_path, quiet=True, vocab_size=1, seqlen=8, d_model=32,
        n_layers=2, budget_tokens=64 * 7 * 150, n_test=512, n_validation=64, device="cpu",
    )  # fmt: skip
    assert result.causal is True
    assert result.flops_per_token > 0
    evaluation = result.evaluations[0]
    assert evaluation["n"] == 512
    assert evaluation["shortcuts"]["zero"] == pytest.approx(result.chance, abs=0.06)
    assert evaluation["required_context"] == {"7": 1.0}
    lines = (tmp_path / result.cell_id / "metrics.csv").read_text().splitlines()
    losses = [float(line.split(",")[lines[0].split(",").index("loss")]) for line in lines[1:]]
    assert losses[-1] < 0.8 < losses[0]  # y has variance 1
