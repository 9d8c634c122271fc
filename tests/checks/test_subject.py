from __future__ import annotations

import pytest
import torch
from torch import Tensor

from checks.broken_operators import Base, L, subject
from mechbench.checks.subject import Finding, judged
from mechbench.errors import ConfigError

pytestmark = pytest.mark.usefixtures("clean_registry")


def test_same_seed_same_operator_another_seed_another() -> None:
    s = subject("hyena")
    one, same, other = s.build(), s.build(), s.build(seed=1)
    u = s.inputs(2, L)
    assert torch.equal(one(u), same(u))
    assert not torch.equal(one(u), other(u))
    assert s.module() is s.module()


def test_longer_inputs_start_like_shorter_ones() -> None:
    s = subject("hyena")
    assert torch.equal(s.inputs(2, 30)[:, :7], s.inputs(2, 7))
    assert not torch.equal(s.inputs(2, 7), s.inputs(2, 7, label="other"))


def test_float64_where_the_operator_knows_it() -> None:
    class SingleOnly(Base):
        def forward(self, u: Tensor) -> Tensor:
            if u.dtype == torch.float64:
                raise TypeError("float32 only")
            return super().forward(u)

    assert subject("hyena").exact()[1] == torch.float64
    s = subject(SingleOnly)
    module, dtype = s.exact()
    assert dtype == torch.float32
    assert module is s.module()
    assert next(module.parameters()).dtype == torch.float32


def test_error_of_the_operator_is_a_fail_of_the_user_an_error() -> None:
    def broken() -> Finding:
        raise ValueError("two\nlines")

    def full() -> Finding:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    def wrong() -> Finding:
        raise ConfigError("no such option")

    assert judged("x", broken) == Finding("x", "FAIL", "raised ValueError: two lines")
    assert judged("x", full).verdict == "-"
    with pytest.raises(ConfigError):
        judged("x", wrong)
