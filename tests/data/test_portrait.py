from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from mechbench.catalogue.registry import TASKS
from mechbench.data.portrait import portrait
from mechbench.tasks.base import IGNORE, Batch, make_task
from mechbench.tasks.icl_functions import IclFunctions
from mechbench.tasks.induction import Induction
from mechbench.tasks.recall import Recall


def test_portrait_says_what_the_task_gives_away() -> None:
    text = portrait("recall", Recall(8, 8), seed=0, n_examples=50)
    lines = text.splitlines()
    assert lines[0] == "recall: Recall(vocab_size=8, seqlen=8, min_distance=0)"
    assert "chance                 33.3%" in lines
    assert any(line.startswith("oracle                100.0%  [92.9%, 100.0%]") for line in lines)
    for shortcut in Recall(8, 8).shortcuts:
        assert any(line.startswith(shortcut) for line in lines)
    assert lines[-1] == "(measured on 50 examples, 50 scored positions)"
    shown = next(line for line in lines if line.startswith("inputs")).split()[1:]
    assert shown[-2] == "=>"
    assert shown[-1].startswith("k")
    assert len(shown) == 10


def test_portrait_of_a_long_example_leaves_the_middle_out_and_counts_it() -> None:
    lines = portrait("recall", Recall(8, 1000), seed=0, n_examples=3).splitlines()
    shown = [w for line in lines if line.startswith("position") for w in line.split()[1:]]
    assert [int(w) for w in shown] == [*range(32), *range(970, 1002)]
    assert "  ... 938 tokens ..." in lines


def test_portrait_counts_every_scored_position() -> None:
    text = portrait("induction", Induction(10, 20, 3), seed=0, n_examples=10)
    assert "(measured on 10 examples, 30 scored positions)" in text


def test_portrait_of_numbers() -> None:
    lines = portrait("icl-functions", IclFunctions(2, 8), seed=0, n_examples=40).splitlines()
    assert any(line.startswith("oracle                100.0%") for line in lines)
    assert lines[0] == "icl-functions: IclFunctions(dimensions=2, seqlen=8)"
    assert any(line.startswith("zero ") for line in lines)
    shown = next(line for line in lines if line.startswith("inputs"))
    assert shown.count("y") == 3
    assert shown.count("..") == 4
    scored = next(line for line in lines if line.startswith("scored targets")).split()[2:]
    assert scored[:-1] == ["."] * 6
    float(scored[-1])


def test_portrait_of_several_right_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Recall.sample

    def sample(self: Recall, batch_size: int, generator: torch.Generator) -> Batch:
        batch = own(self, batch_size, generator)
        right = torch.where(batch.targets == IGNORE, IGNORE, batch.targets - 1)
        return replace(batch, also=torch.stack([right, torch.full_like(right, IGNORE)], 2))

    monkeypatch.setattr(Recall, "sample", sample)
    lines = portrait("recall", Recall(8, 8), seed=0, n_examples=5).splitlines()
    (scored, first, second) = (
        next(line for line in lines if line.startswith(label)).split()[-1]
        for label in ("scored targets", "also right, 1", "also right, 2")
    )
    assert (first, second) == (f"v{int(scored[1:]) - 1}" if scored != "v0" else first, ".")


@pytest.mark.parametrize("name", TASKS.names())
def test_portrait_of_every_task(name: str) -> None:
    task = make_task(name)
    text = portrait(name, task, seed=0, n_examples=20)
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith(f"{name}: {type(task).__name__}({task.vocab_name}={task.vocab_size}, ")
    assert re.search(r"^oracle +100.0%", text, re.M)
