from __future__ import annotations

import pytest
import torch
from torch import nn

from mechbench.training.kinds import is_own, kind_of
from mechbench.training.model import Backbone


def backbone(operator: str = "hyena", **changed: int) -> Backbone:
    sizes = {"vocab_size": 8, "d_model": 8, "n_layers": 1, "max_seqlen": 16} | changed
    return Backbone(operator, {}, **sizes)


class Loose(nn.Module):
    """Holds a tensor that is neither parameter nor buffer."""

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.random = torch.randn(size)


@pytest.mark.parametrize("of_step", [False, True])
def test_weights_make_no_other_kind_and_everything_else_does(of_step: bool) -> None:
    kind = kind_of(backbone(), of_step=of_step)
    assert kind == kind_of(backbone(), of_step=of_step)
    others = [backbone("attention"), *(backbone(**{k: 24}) for k in ("d_model", "vocab_size"))]
    others += [backbone(n_layers=2), backbone().eval(), backbone().double()]
    frozen = backbone()
    frozen.head.bias.requires_grad_(False)
    hooked = backbone()
    hooked.head.register_forward_hook(lambda module, args, y: y)
    assert kind not in [kind_of(other, of_step=of_step) for other in (*others, frozen, hooked)]


def test_loose_tensors_are_of_one_kind_unless_steps_are_compared() -> None:
    assert kind_of(Loose()) == kind_of(Loose()) != kind_of(Loose(3))
    assert kind_of(Loose(), of_step=True) != kind_of(Loose(), of_step=True)
    one = Loose()
    assert kind_of(one, of_step=True) == kind_of(one, of_step=True)


def test_a_model_is_our_own_only_if_all_its_parts_are() -> None:
    model = backbone()
    assert is_own(model)
    model.blocks.append(Loose())
    assert not is_own(model)
