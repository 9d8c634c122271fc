from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from checks import broken_operators as broken
from checks.broken_operators import subject
from mechbench.checks.rewarded import causal_once_trained

pytestmark = pytest.mark.usefixtures("clean_registry")


def test_causal_operator_is_no_better_than_chance() -> None:
    finding = causal_once_trained(subject(broken.Base))
    assert (finding.name, finding.verdict) == ("causal once trained", "PASS")
    assert "after 20 steps (chance 12.5%), nothing but rounding" in finding.text
    assert 0.08 < finding.value < 0.17


def test_branch_that_starts_closed_opens_and_is_told_by_its_accuracy() -> None:
    finding = causal_once_trained(subject(broken.Opening))
    assert finding.verdict == "FAIL"
    assert finding.text.endswith("of random next tokens after 20 steps: without a look-ahead 12.5%")
    assert finding.value > 0.2


def test_what_is_too_faint_for_an_accuracy_is_told_by_the_probe() -> None:
    finding = causal_once_trained(subject(broken.Faint))
    assert finding.verdict == "FAIL"
    assert finding.text.startswith("after 20 steps: ")


def test_training_that_diverges_measures_nothing() -> None:
    class Explosive(broken.Base):
        def forward(self, u: Tensor) -> Tensor:
            return super().forward(u) / (0 if self.training else 1)

    finding = causal_once_trained(subject(Explosive))
    assert (finding.verdict, finding.text[:12]) == ("-", "not measured")


def test_it_is_the_same_again_and_disturbs_nothing() -> None:
    examined = dataclasses.replace(subject("hyena"), steps=3)
    state = torch.get_rng_state()
    assert causal_once_trained(examined) == causal_once_trained(examined)
    assert torch.equal(torch.get_rng_state(), state)
