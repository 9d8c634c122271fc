from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from mechbench import run
from mechbench.operators.base import set_optim
from mechbench.record.results import Result
from mechbench.training.kept import Kept, Trainer
from mechbench.training.model import Backbone


def model(seed: int, operator: str = "conv") -> Backbone:
    torch.manual_seed(seed)
    return Backbone(operator, {}, vocab_size=8, d_model=16, n_layers=1, max_seqlen=16)


def take(kept: Kept, built: nn.Module, device: str, lr: float = 1e-3, setting: int = 0) -> Trainer:
    with kept.trainer(built, lr, 0.1, setting, device) as trainer:
        tokens = torch.zeros(2, 8, dtype=torch.int64, device=device)
        trainer.model(tokens).square().mean().backward()
        trainer.optimizer.step()
    return trainer


def test_each_cell_has_a_trainer_of_its_own_by_default(device: str) -> None:
    kept, first = Kept(), model(0)
    trainer = take(kept, first, device)
    assert trainer.model is first
    assert take(kept, model(0), device) is not trainer


def test_a_trainer_is_handed_on_where_steps_can_be_captured(device: str) -> None:
    kept = Kept(cells=True)
    trainer = take(kept, model(0), device)
    assert (take(kept, model(1), device, lr=1e-2) is trainer) == (device == "cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_it_has_the_numbers_of_the_new_model_and_no_history() -> None:
    kept = Kept(cells=True)
    trainer = take(kept, model(0), "cuda")
    fresh = model(1)
    expected = {k: v.clone() for k, v in fresh.state_dict().items()}
    with kept.trainer(fresh, 1e-2, 0.3, 0, "cuda") as again:
        assert again is trainer
        assert again.optimizer.param_groups[0]["peak_lr"] == 1e-2
        for state in again.optimizer.state.values():
            assert all(not value.any() for value in state.values())
        for name, value in again.model.state_dict().items():
            assert torch.equal(value.cpu(), expected[name])
        tokens = torch.zeros(2, 8, dtype=torch.int64, device="cuda")
        again.model.zero_grad()
        again.model(tokens).square().mean().backward()
        again.optimizer.set_rates(1.0)  # type: ignore[attr-defined]
        again.optimizer.step()
    alone = model(1)
    plain = take(Kept(), alone, "cuda", lr=1e-2)
    moved = {k: v - expected[k].cuda() for k, v in plain.model.state_dict().items()}
    for name, value in trainer.model.state_dict().items():
        if "weight" not in name:  # the decay is another
            torch.testing.assert_close(value - expected[name].cuda(), moved[name])


def other_rates() -> nn.Module:
    built = model(0)
    set_optim(built.blocks[0].operator, lr=3e-4)
    return built


def with_state() -> nn.Module:
    built = model(0)
    built.blocks[0].operator.calls = 3  # type: ignore[assignment]
    return built


@pytest.mark.parametrize("other", [other_rates, with_state, lambda: model(0, "attention")])
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_another_kind_gets_another_trainer(other: Callable[[], nn.Module]) -> None:
    kept = Kept(cells=True)
    trainer = take(kept, model(0), "cuda")
    assert take(kept, other(), "cuda") is not trainer


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_another_setting_or_an_error_gets_another_trainer() -> None:
    kept = Kept(cells=True)
    trainer = take(kept, model(0), "cuda")
    other = take(kept, model(0), "cuda", setting=1)
    assert other is not trainer

    def fail() -> None:
        with kept.trainer(model(0), 1e-3, 0.1, 1, "cuda") as third:
            assert third is other
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert take(kept, model(0), "cuda", setting=1) is not other


@pytest.mark.parametrize("operator", ["conv", "hyena", "attention"])
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cells_that_share_steps_get_what_they_get_alone(operator: str, tmp_path: Path) -> None:
    def cell(seed: int, lr: float, schedule: str, out: str, kept: Kept | None) -> Result:
        return run(
            operator, "recall", schedule=schedule, seqlen=32, vocab_size=8, budget_tokens=60_000,
            seed=seed, lr=lr, d_model=16, batch_size=32, validate_every=20, device="cuda",
            out=tmp_path / out, kept=kept,
        )  # fmt: skip

    kept = Kept(cells=True)
    for seed, lr, schedule in (
        (0, 4e-3, "averaged"), (1, 4e-3, "averaged"), (1, 1e-3, "constant"), (1, 1e-3, "wsd"),
        (1, 4e-3, "schedule-free"), (2, 4e-3, "schedule-free"), (2, 4e-3, "averaged"),
    ):  # fmt: skip
        shared = cell(seed, lr, schedule, "shared", kept)
        alone = cell(seed, lr, schedule, "alone", None)
        assert shared.data["evaluations"] == alone.data["evaluations"]
        assert shared.steps == alone.steps
        assert shared.data["peak_memory_mib"] > 0
