from __future__ import annotations

import dataclasses
import random
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mechbench.data.streams import TrainStream, Unseen, evaluation_batches
from mechbench.record.config import Config
from mechbench.tasks.base import IGNORE, Batch
from mechbench.tasks.icl_functions import IclFunctions
from mechbench.tasks.recall import Recall
from mechbench.training import loop as module
from mechbench.training import run as running
from mechbench.training.branches import StableDecay
from mechbench.training.checkpoint import load_checkpoint, save_checkpoint
from mechbench.training.lane import Lane
from mechbench.training.loop import (
    Hooks,
    Progress,
    backward,
    loss_and_counts,
    step_gradients,
    train,
)
from mechbench.training.model import Backbone
from mechbench.training.named_schedules import SCHEDULES

V, L, B = 8, 16, 8
STEP = B * (L + 2)  # tokens
TASK = Recall(V, L)
GOLDEN = 0.866035  # loss of a fixed run after 20 steps, on a CPU in float32
TIMED = ("tokens_per_s", "train_s")


def config(n_steps: int = 30, **changes: Any) -> Config:
    base = Config(
        "hyena", "recall", seqlen=L, vocab_size=V, eval_seqlens=(L,), d_model=16, n_layers=1,
        batch_size=B, curriculum=((L, B),), budget_tokens=n_steps * STEP, warmup_steps=5,
        n_validation=B, n_test=B, validate_every=5, schedule="constant",
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def make_model(seed: int = 0, operator: str = "hyena") -> Backbone:
    torch.manual_seed(seed)
    return Backbone(operator, {}, vocab_size=V, d_model=16, n_layers=1, max_seqlen=L + 2)


@dataclasses.dataclass
class Run:
    """A model in training."""

    config: Config
    model: nn.Module
    task: Recall = TASK
    unseen: Any = None

    def __post_init__(self) -> None:
        kind = SCHEDULES[self.config.schedule]
        self.optimizer = kind.optimizer(self.model, self.config.lr, self.config.weight_decay)
        self.schedule = kind(self.model, self.optimizer, self.config.warmup_steps)
        self.progress = Progress()
        self.validation = evaluation_batches(
            self.task, self.config.n_validation, self.config.seed, "validation"
        )
        self.unseen = self.unseen or Unseen.of(self.validation, "cpu")
        self.warnings: list[str] = []

    def go(self, **hooks: Any) -> Progress:
        train(
            running.Run(self.config, "cpu", self.task), self.model, self.optimizer, self.schedule,
            self.progress, self.validation, self.unseen, Hooks(warn=self.warnings.append, **hooks),
        )  # fmt: skip
        return self.progress

    def save(self, path: Path) -> None:
        save_checkpoint(path, "cell", self.model, self.optimizer, self.progress, self.schedule)

    def load(self, path: Path) -> None:
        progress, warning = load_checkpoint(
            path, "cell", self.model, self.optimizer, self.config, self.schedule
        )
        assert warning is None
        self.progress = progress or self.progress

    def evaluated(self) -> list[Tensor]:
        """Return the weights that are validated."""
        with self.schedule.weights():
            return [p.detach().clone() for p in self.model.parameters()]

    def weights(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def rows(self) -> list[dict[str, Any]]:
        """Return the metrics without what a clock measures."""
        return [{k: v for k, v in r.items() if k not in TIMED} for r in self.progress.metrics]


class Oracle(nn.Module):
    """Solves the task; each validation is right as `verdicts` says, the rest is right."""

    def __init__(self, verdicts: Iterable[bool] = ()) -> None:
        super().__init__()
        self.verdicts = iter(verdicts)
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, tokens: Tensor) -> Tensor:
        right = self.training or next(self.verdicts, True)
        answers = Recall(V, tokens.shape[1] - 2).oracle(tokens).clamp_min(0)
        logits = nn.functional.one_hot(answers, V).float() * 50 * self.weight
        return logits if right else -logits


class Wrapped(nn.Module):
    """A model that lets `before` act on every training pass."""

    def __init__(self, before: Callable[[int, Tensor], float | None]) -> None:
        super().__init__()
        self.inner, self.before, self.passes = make_model(), before, 0

    def forward(self, tokens: Tensor) -> Tensor:
        factor = None
        if self.training:
            self.passes += 1
            factor = self.before(self.passes, tokens)
        logits: Tensor = self.inner(tokens)
        return logits if factor is None else logits * factor


def fits(most: int) -> Callable[[int, Tensor], None]:
    def before(number: int, tokens: Tensor) -> None:
        if len(tokens) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    return before


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {n.removeprefix("inner."): p.grad for n, p in model.named_parameters()}
    return {name: grad.clone() for name, grad in found.items() if grad is not None}


def batch() -> Batch:
    return TASK.sample(B, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("operator", ["hyena", "attention"])
@pytest.mark.parametrize("micro_batch", [1, 3, 8, 100])
@pytest.mark.parametrize("both", [False, True])
def test_gradient_does_not_depend_on_the_micro_batch(
    operator: str, micro_batch: int, both: bool
) -> None:
    data = batch()  # rows have different numbers of scored positions
    model = make_model(operator=operator).double()
    logits = model(data.inputs)

    def mean(targets: Tensor) -> Tensor:
        flat = logits.flatten(0, 1), targets.flatten()
        return nn.functional.cross_entropy(*flat, ignore_index=IGNORE)

    targets, expected = data.dense_targets, mean(data.dense_targets)
    if both:
        targets = torch.stack([targets, data.targets], 1)
        expected = 0.9 * expected + 0.1 * mean(data.targets)
    expected.backward()
    whole = gradients(model)
    model.zero_grad()
    loss, counts = backward(model, data.inputs, targets, micro_batch, "cpu", "float32")
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    scored = data.dense_targets != IGNORE
    right = (logits.argmax(-1) == data.dense_targets)[scored].sum()
    assert counts.tolist() == [int(right), int(scored.sum())]
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-5, atol=1e-7, msg=name)


def test_batch_without_a_scored_position_has_no_gradient() -> None:
    data, model = batch(), make_model()
    nothing = torch.full_like(data.targets, IGNORE)
    loss, counts = backward(model, data.inputs, nothing, 3, "cpu", "float32")
    assert (loss.item(), counts.tolist()) == (0.0, [0, 0])
    assert all(not grad.any() for grad in gradients(model).values())


@pytest.mark.parametrize(("most", "used"), [(8, 8), (7, 4), (3, 2), (1, 1)])
def test_step_is_repeated_with_half_the_micro_batch(most: int, used: int) -> None:
    data, settings, progress = batch(), config(), Progress()
    run = running.Run(settings, "cpu", TASK)
    plain, tight = make_model(), Wrapped(fits(most))
    warnings: list[str] = []
    whole, _ = step_gradients(
        plain, data.inputs, data.dense_targets, run, Progress(), warnings.append
    )
    assert not warnings
    loss, counts = step_gradients(
        tight, data.inputs, data.dense_targets, run, progress, warnings.append
    )
    assert progress.micro_batch(settings, B, L + 2) == used
    assert len(warnings) == progress.halvings == (B // used).bit_length() - 1
    torch.testing.assert_close(loss, whole)
    assert counts[1] == (data.dense_targets != IGNORE).sum()
    expected = gradients(plain)
    for name, gradient in gradients(tight).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_half_done_step_leaves_nothing_in_the_gradient() -> None:
    def second_piece_fails(number: int, tokens: Tensor) -> None:
        if number == 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    data, run = batch(), running.Run(config(), "cpu", TASK)
    plain, tight = make_model(), Wrapped(second_piece_fails)
    for model in (plain, tight):
        step_gradients(model, data.inputs, data.targets, run, Progress(halvings=1), lambda _: None)
    expected = gradients(plain)
    for name, gradient in gradients(tight).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=name)


class Crowded(Lane):
    crowded = True


def test_no_micro_batch_is_halved_for_the_memory_that_other_cells_hold() -> None:
    data, run = batch(), running.Run(config(), "cpu", TASK, lane=Crowded())
    progress = Progress()
    with pytest.raises(torch.cuda.OutOfMemoryError):
        step_gradients(Wrapped(fits(1)), data.inputs, data.targets, run, progress, lambda _: None)
    assert progress.halvings == 0


def test_single_sequence_that_does_not_fit_raises() -> None:
    run = Run(config(), Wrapped(fits(0)))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        run.go()
    assert len(run.warnings) == 3  # 8, 4, 2; then one sequence
    assert (run.progress.step, run.progress.stop) == (0, "")


def test_loss_of_a_fixed_run_is_golden() -> None:
    run = Run(config(20), make_model())
    assert run.go().stop == "budget"
    assert run.rows()[-1]["loss"] == pytest.approx(GOLDEN, rel=1e-3)


def test_training_lowers_the_loss_and_moves_every_parameter() -> None:
    run = Run(config(60), make_model(operator="attention"))
    before = run.weights()
    run.go()
    losses = [row["loss"] for row in run.rows()]
    assert losses[-1] < 0.8 * losses[0]
    after = run.weights()
    assert not [name for name in before if torch.equal(before[name], after[name])]


def test_model_is_in_training_mode_also_after_a_validation() -> None:
    run = Run(config(12), make_model().eval())
    modes = []
    run.go(advanced=lambda tokens: modes.append(run.model.training))
    assert modes == [True] * 12


def test_rows_say_where_training_stands() -> None:
    run = Run(config(12), make_model())
    progress = run.go()
    assert [(r["step"], r["tokens"], r["seqlen"]) for r in run.rows()] == [
        (5, 5 * STEP, L), (10, 10 * STEP, L),
    ]  # fmt: skip
    assert (progress.step, progress.tokens, progress.stop) == (12, 12 * STEP, "budget")
    assert all(0 <= r["validation_accuracy"] <= 1 for r in run.rows())
    assert all(r["tokens_per_s"] > 0 for r in progress.metrics)
    assert progress.pending[1] > 0  # what a larger budget goes on with


def test_budget_is_not_exceeded() -> None:
    progress = Run(config(budget_tokens=7 * STEP - 1), make_model()).go()
    assert (progress.step, progress.tokens) == (6, 6 * STEP)


def test_rates_follow_the_schedule() -> None:
    run = Run(config(10), make_model())
    seen = []
    run.go(advanced=lambda tokens: seen.append(run.optimizer.param_groups[0]["lr"]))
    assert seen == [4e-3 * run.schedule.factor(step, 0) for step in range(10)]
    assert seen[4:] == [4e-3] * 6  # whatever the budget


@pytest.mark.parametrize(("loss_on", "field"), [("dense", "dense_targets"), ("scored", "targets")])
def test_loss_is_on_the_positions_asked_for(
    loss_on: str, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spy_on_targets(monkeypatch)
    run = Run(config(2, loss_on=loss_on), make_model())
    run.go()
    stream = TrainStream(TASK, B, 0, "cpu")
    fresh = run.unseen(stream.batch(0).inputs)
    assert fresh.all()
    assert torch.equal(seen[0][1], getattr(stream.batch(0), field))


def spy_on_targets(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """Return a list that gets the inputs and targets of every step."""
    seen: list[tuple[Tensor, Tensor]] = []
    real = module.step_gradients

    def step(model: nn.Module, inputs: Tensor, targets: Tensor, *args: Any) -> Any:
        seen.append((inputs, targets))
        return real(model, inputs, targets, *args)

    monkeypatch.setattr(module, "step_gradients", step)
    return seen


def test_examples_of_the_evaluation_sets_are_not_trained_on_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny = Recall(V, 4)  # so few examples that streams coincide
    settings = config(seqlen=4, curriculum=((4, B),), budget_tokens=12 * B * 6, n_validation=200)
    seen = spy_on_targets(monkeypatch)
    run = Run(settings, make_model(), task=tiny)
    known = {tuple(row) for b in run.validation for row in b.inputs.tolist()}
    progress = run.go()
    excluded = 0
    for inputs, targets in seen:
        for row, target in zip(inputs.tolist(), targets, strict=True):
            held_out = tuple(row) in known
            excluded += held_out
            assert bool((target == IGNORE).all()) is held_out
    assert 0 < excluded < 12 * B
    assert progress.excluded + progress.pending[2] == excluded


def test_a_training_set_of_few_examples_is_seen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy_on_targets(monkeypatch)
    progress = Run(config(6, n_train=2 * B), make_model()).go()
    assert progress.step == 6
    rows = [tuple(row) for inputs, _ in seen for row in inputs.tolist()]
    assert len(rows) == 6 * B
    assert len(set(rows)) == 2 * B


def test_batch_of_held_out_examples_alone_does_no_harm() -> None:
    run = Run(config(6), make_model(), unseen=lambda x: torch.zeros(len(x), dtype=torch.bool))
    progress = run.go()
    assert (progress.stop, progress.excluded, progress.pending[2]) == ("budget", 5 * B, B)
    assert all(w.isfinite().all() for w in run.weights().values())


def test_not_a_number_ends_training_with_the_weights_of_before() -> None:
    run = Run(config(), Wrapped(lambda number, _: float("nan") if number == 8 else None))
    kept: list[dict[str, Tensor]] = []
    saved: list[str] = []
    progress = run.go(
        interrupted=lambda: kept.append(run.weights()),
        checkpoint=lambda: saved.append(run.progress.stop),
    )
    assert (progress.stop, progress.step, saved) == ("diverged", 7, ["diverged"])
    assert all(torch.equal(kept[-1][name], w) for name, w in run.weights().items())
    assert [row["step"] for row in run.rows()] == [5]


def test_last_step_with_a_gradient_that_is_no_number_is_divergence() -> None:
    run = Run(config(10), make_model())
    passes = []

    def spoil(gradient: Tensor) -> Tensor:
        passes.append(1)
        return gradient * float("nan") if len(passes) == 10 else gradient

    next(run.model.parameters()).register_hook(spoil)
    assert run.go().stop == "diverged"


def test_solved_needs_two_validations_in_a_row() -> None:
    run = Run(config(100), Oracle([True, False, True, True]))
    progress = run.go()
    assert (progress.stop, progress.step, progress.streak) == ("solved", 20, 2)
    assert [row["validation_accuracy"] for row in run.rows()] == [1.0, 0.0, 1.0, 1.0]


def test_one_good_validation_at_the_end_is_not_solved() -> None:
    run = Run(config(10), Oracle([False, True]))
    assert run.go().stop == "budget"


def test_stages_advance_with_the_accuracy_and_are_not_validated_before_the_last() -> None:
    run = Run(config(100, curriculum=((4, B), (8, B), (L, B))), Oracle())
    assert run.go().stop == "solved"
    assert [(r["seqlen"], r["validation_accuracy"]) for r in run.rows()] == [
        (4, None), (8, None), (L, 1.0), (L, 1.0),
    ]  # fmt: skip
    assert (run.progress.stage, run.progress.stage_tokens) == (2, 10 * STEP)


def test_stage_that_is_not_learnt_ends_after_its_tokens_whatever_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mechbench.plan.curriculum.STAGE_TOKENS", 6 * B * 6)
    found = []
    for n_steps in (30, 60):
        run = Run(config(n_steps, curriculum=((4, B), (8, B), (L, B)), lr=1e-9), make_model())
        run.go()
        found.append([row["seqlen"] for row in run.rows()])
    # A stage ends where a row falls: after 6 steps of 6 tokens there are 10, 4 of 10 are 5.
    assert found[0][:4] == [4, 4, 8, L]
    assert found[1][: len(found[0])] == found[0]


def test_interrupted_run_is_saved_and_not_stopped() -> None:
    run = Run(config(), make_model())
    saved: list[Progress] = []
    progress = run.go(
        interrupted=lambda: run.progress.step == 7,
        checkpoint=lambda: saved.append(dataclasses.replace(run.progress)),
    )
    assert (progress.step, progress.stop) == (7, "")
    assert [p.step for p in saved] == [7]
    assert saved[0].pending[1] > 0  # counts since the last row are kept


@pytest.mark.parametrize("curriculum", [((L, B),), ((4, 5), (L, B))])
@pytest.mark.parametrize("parts", [(7,), (5,), (1, 2, 13, 29)])
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(
    tmp_path: Path, parts: tuple[int, ...], curriculum: tuple[tuple[int, int], ...]
) -> None:
    settings = config(30, curriculum=curriculum)
    whole = Run(settings, make_model(operator="attention"))
    whole.go()
    path = tmp_path / "checkpoint.pt"
    for seed, at in enumerate([*parts, -1]):
        run = Run(settings, make_model(seed, "attention"))
        run.load(path)
        assert run.progress.step == (parts[seed - 1] if seed else 0)
        run.go(
            interrupted=lambda run=run, at=at: run.progress.step == at,
            checkpoint=lambda run=run: run.save(path),
        )
    check_same(run, whole)


def check_same(run: Run, whole: Run) -> None:
    assert run.rows() == whole.rows()
    assert all(torch.equal(w, whole.weights()[name]) for name, w in run.weights().items())
    assert all(map(torch.equal, run.evaluated(), whole.evaluated()))
    final = [dataclasses.replace(r.progress, train_s=0.0, metrics=[]) for r in (run, whole)]
    assert final[0] == final[1]


LONG = 45  # steps: nine rows of metrics, and branches between them


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(
    leaps=st.lists(st.integers(1, LONG - 1), max_size=2),
    stops=st.lists(st.integers(0, LONG - 1), max_size=2),
    staged=st.booleans(),
)
@settings(max_examples=3, deadline=None)
def test_a_run_is_a_part_of_every_longer_one_however_it_is_cut(
    schedule: str, leaps: list[int], stops: list[int], staged: bool
) -> None:
    curriculum = ((4, 5), (L, B)) if staged else ((L, B),)
    given = {"curriculum": curriculum, "schedule": schedule, "lr": 3e-3}
    whole = Run(config(LONG, **given), make_model(0, "attention"))
    shorten(whole)
    whole.go()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        budgets = [*sorted(leaps), LONG]
        for n_steps in budgets:
            for at in [*sorted(stops), None]:
                run = Run(config(n_steps, **given), make_model(n_steps, "attention"))
                if not path.exists():
                    run = Run(config(n_steps, **given), make_model(0, "attention"))
                shorten(run)
                run.load(path)
                before = [run.progress.step]
                run.go(
                    interrupted=lambda run=run, at=at, before=before: (
                        run.progress.step == at and run.progress.step != before[0]
                    ),
                    checkpoint=lambda run=run: run.save(path),
                )
            if n_steps < LONG:
                assert run.progress.stop == "budget"
                assert run.progress.tokens <= n_steps * STEP
                assert run.rows() == whole.rows()[: len(run.rows())]
    check_same(run, whole)


def shorten(run: Run) -> None:
    """Let a schedule that branches do so early."""
    if isinstance(run.schedule, StableDecay):
        run.schedule._first_tokens = 10 * STEP


def test_a_branch_is_undone_and_its_tokens_are_spent() -> None:
    run = Run(config(40, schedule="wsd"), make_model())
    shorten(run)
    progress = run.go()
    assert (progress.tokens, progress.stop) == (40 * STEP, "budget")
    assert run.schedule.aside_tokens > 0
    assert progress.step * STEP == progress.tokens - run.schedule.aside_tokens
    assert progress.step < 40


def test_validations_are_of_the_weights_that_the_schedule_evaluates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    real = module.score_counts

    def counts(model: nn.Module, *args: Any) -> Any:
        seen.append([p.detach().clone() for p in model.parameters()])
        return real(model, *args)

    monkeypatch.setattr(module, "score_counts", counts)
    run = Run(config(10, schedule="averaged"), make_model())
    run.go()
    assert len(seen) == 2
    assert all(map(torch.equal, seen[-1], run.evaluated()))
    trained = list(run.weights().values())
    assert not any(map(torch.equal, seen[-1], trained))


class Drawing(nn.Module):
    """A model that draws from every generator in training, and from torch's in evaluation too."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.inner = make_model(seed, "attention")

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = nn.functional.dropout(self.inner(tokens), 0.3)
        if self.training:
            logits = logits * (1 + random.random() + float(np.random.rand()))  # noqa: NPY002
        return logits


def test_what_an_operator_draws_does_not_depend_on_interruptions_or_validations(
    tmp_path: Path,
) -> None:
    whole = Run(config(12), Drawing(0))
    whole.go()
    path = tmp_path / "checkpoint.pt"
    for seed, at in enumerate([3, 7, -1]):
        run = Run(config(12), Drawing(seed))
        run.load(path)
        run.go(
            interrupted=lambda run=run, at=at: run.progress.step == at,
            checkpoint=lambda run=run: run.save(path),
        )
    seldom = Run(config(12, validate_every=100), Drawing(0))
    seldom.go()
    for name, weight in whole.weights().items():
        assert torch.equal(run.weights()[name], weight)
        assert torch.equal(seldom.weights()[name], weight)
    other = Run(config(12, seed=1), Drawing(0))
    other.go()
    assert other.rows() != whole.rows()


def test_checkpoints_on_the_way_change_nothing() -> None:
    plain, saving = (Run(config(15), make_model()) for _ in range(2))
    plain.go()
    saved: list[int] = []
    saving.go(
        checkpoint_due=lambda: saving.progress.step % 4 == 3,
        checkpoint=lambda: saved.append(saving.progress.step),
    )
    assert saved == [3, 7, 11, 15]  # the last one is the end
    assert saving.rows() == plain.rows()
    assert all(torch.equal(w, plain.weights()[name]) for name, w in saving.weights().items())


def test_finished_run_does_not_go_on() -> None:
    run = Run(config(), make_model())
    run.progress.stop = "solved"
    before = run.weights()
    run.go()
    assert run.progress.step == 0
    assert all(torch.equal(w, before[name]) for name, w in run.weights().items())


def test_micro_batch_is_remembered_after_running_out_of_memory() -> None:
    run = Run(config(6), Wrapped(fits(2)))
    assert run.go().stop == "budget"
    assert len(run.warnings) == run.progress.halvings == 2
    assert run.progress.micro_batch(run.config, B, L + 2) == 2


def test_progress_is_plain_data_and_comes_back() -> None:
    progress = Progress(step=3, pending=[1, 2, 3], metrics=[{"loss": 0.5}])
    assert Progress(**progress.to_dict()) == progress
    assert Progress().pending is not Progress().pending


def test_loss_of_numbers_is_the_squared_error_where_scored() -> None:
    targets = torch.tensor([[1.0, IGNORE, -2.0]])
    outputs = torch.tensor([[[1.5], [7.0], [-1.0]]], requires_grad=True)
    loss, counts = loss_and_counts(outputs, targets)
    loss.backward()
    assert loss.item() == 1.25
    assert counts.tolist() == [0, 2]
    assert outputs.grad is not None
    assert outputs.grad.flatten().tolist() == [1.0, 0.0, 2.0]


def test_gradient_on_numbers_does_not_depend_on_the_micro_batch() -> None:
    batch = IclFunctions(2, 16).sample(6, torch.Generator().manual_seed(0))
    grads = []
    for micro_batch in (6, 4, 1):
        torch.manual_seed(0)
        net = Backbone(
            "attention", {}, vocab_size=2, d_model=16, n_layers=1, max_seqlen=15, input_dim=3
        )
        backward(net, batch.inputs, batch.dense_targets, micro_batch, "cpu", "float32")
        grads.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert grads[0].abs().max() > 0.01
    for other in grads[1:]:
        torch.testing.assert_close(other, grads[0], rtol=1e-4, atol=1e-6)
