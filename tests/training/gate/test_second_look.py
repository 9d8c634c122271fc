from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from checks import broken_operators as broken
from checks.broken_operators import D, V, model, shifted
from torch import Tensor, nn

from mechbench.record.config import Config
from mechbench.tasks.recall import Recall
from mechbench.training.evaluation import autocast
from mechbench.training.gate import after, before
from mechbench.training.gate.lookahead import Fault, by_gradient, by_value, cuts, model_function
from mechbench.training.gate.second_look import second_look

pytestmark = pytest.mark.usefixtures("clean_registry")
L, B = 1024, 4
CONFIG = Config(
    "mine", "recall", seqlen=L, vocab_size=V, d_model=D, eval_seqlens=(L,), budget_tokens=1,
    dtype="bfloat16",
)  # fmt: skip


def in_half() -> bool:
    return torch.is_autocast_enabled("cpu")


class Spectra(broken.Base):
    """Far taps a hundred times the others, by an FFT; their spectrum in half precision."""

    def halved(self) -> bool:
        return in_half()

    def forward(self, u: Tensor) -> Tensor:
        n = u.shape[1]
        taps = 73.7 * (torch.arange(n) >= n // 32).float()
        spectrum = torch.fft.rfft(taps, n=2 * n)
        if self.halved():
            power = 2.0 ** torch.floor(torch.log2(spectrum.abs().max()) - 14)
            parts = torch.view_as_real(spectrum / power).half().float()
            spectrum = torch.view_as_complex(parts) * power
        inputs = torch.fft.rfft((u * self.scale).float(), n=2 * n, dim=1)
        return torch.fft.irfft(inputs * spectrum[:, None], n=2 * n, dim=1)[:, :n].to(u.dtype)


class AlwaysHalved(Spectra):
    def halved(self) -> bool:
        return True


class WrongMask(broken.Base):
    """Sees a fifth of the next token in half precision."""

    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u) + (0.2 * shifted(u) if in_half() else 0)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, ahead: float) -> Tensor:
        ctx.ahead = ahead
        return u.clone()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        before = torch.cat([dy[:, :1], dy[:, :-1]], 1)
        return dy + ctx.ahead * before, None


class WrongBackward(broken.Base):
    """Its gradients alone look ahead, and in half precision alone."""

    def forward(self, u: Tensor) -> Tensor:
        return super().forward(_Backward.apply(u, 0.01 * in_half()))  # type: ignore[no-untyped-call]


def gates(component: Any, dtype: str = "bfloat16") -> list[str | None]:
    """Return what is said before training, and of the same weights after it."""
    torch.manual_seed(0)
    built, task = model(component, max_seqlen=L + 2), Recall(V, L)
    config = replace(CONFIG, dtype=dtype)
    examples = task.sample(B, torch.Generator().manual_seed(0))
    return [
        before(built, config, [task], B, "cpu", pytest.fail),
        after(built, config, task, examples, B, B, "cpu"),
    ]


def looks(component: type[nn.Module]) -> tuple[list[Fault | None], list[Fault | None]]:
    """Return what is found by value and by gradient, at first and at a second look."""
    torch.manual_seed(0)
    built = model(component, max_seqlen=L)
    tokens, at = torch.randint(V, (B, L)), cuts(L, B, 0)
    run = model_function(built, tokens)
    first: list[Fault | None] = []
    second: list[Fault | None] = []
    for judge in (lambda: by_value(run, at, 0), lambda: by_gradient(run, at[-1], 0)):
        with autocast("cpu", "bfloat16"):
            first.append(judge())
        second.append(second_look(first[-1], judge, built, tokens, at, 0, "bfloat16"))
    return first, second


def test_rounding_of_spectra_is_found_at_first_and_dropped() -> None:
    first, second = looks(Spectra)
    assert [fault is not None and fault.kind for fault in first] == ["ahead", "ahead"]
    assert second == [None, None]
    said = gates(Spectra)
    assert str(said[0]).startswith("is not causal: ")  # no excuse before training
    assert said[1] is None
    assert gates(Spectra, "float32") == [None, None]


@pytest.mark.parametrize("component", [AlwaysHalved, WrongMask])
def test_what_float32_shows_too_or_is_more_than_rounding_stays(component: Any) -> None:
    first, second = looks(component)
    assert None not in first
    assert second == first
    assert all(str(said).startswith("is not causal: ") for said in gates(component))


def test_gradients_that_look_ahead_in_half_precision_alone_stay() -> None:
    first, second = looks(WrongBackward)
    assert first[0] is None
    assert first[1] is not None
    assert second == first
    assert all("have a gradient of" in str(said) for said in gates(WrongBackward))


def test_what_float32_alone_shows_is_found() -> None:
    fault = Fault("ahead", "in float32")
    built, tokens = model(broken.Base, max_seqlen=L), torch.zeros(B, 8, dtype=torch.int64)
    at = cuts(8, B, 0)
    assert second_look(None, lambda: fault, built, tokens, at, 0, "bfloat16") == fault
    restless = Fault("restless", "")
    assert second_look(None, lambda: restless, built, tokens, at, 0, "bfloat16") is None


def test_kernels_that_refuse_float32_are_judged_without_it() -> None:
    def refuses() -> Fault | None:
        raise TypeError("bfloat16 only")

    built, tokens = model(broken.Base, max_seqlen=L), torch.zeros(B, 8, dtype=torch.int64)
    fault, at = Fault("ahead", ""), cuts(8, B, 0)
    assert second_look(fault, refuses, built, tokens, at, 0, "bfloat16") == fault
    assert second_look(None, refuses, built, tokens, at, 0, "bfloat16") is None


def test_too_little_memory_is_told() -> None:
    def fills() -> Fault | None:
        raise torch.OutOfMemoryError

    built, tokens = model(broken.Base, max_seqlen=L), torch.zeros(B, 8, dtype=torch.int64)
    with pytest.raises(torch.OutOfMemoryError):
        second_look(None, fills, built, tokens, cuts(8, B, 0), 0, "bfloat16")
