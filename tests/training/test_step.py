from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.training.optimiser import make_optimizer
from mechbench.training.step import WARM_UP, Stepper

CLIP, LR, DECAY = 0.05, 1e-2, 0.1


class Item(nn.Module):
    """Asks for a number, which a capture does not allow."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + 0 * x.detach().sum().item())


def make_model(device: str, *extra: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Linear(4, 8, bias=False), nn.Tanh(), *extra, nn.Linear(8, 5, bias=False)
    return nn.Sequential(*layers).to(device)


def make_stepper(model: nn.Module, capture: bool, told: list[str]) -> Stepper:
    def gradients(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        model.zero_grad(set_to_none=True)
        out = model(inputs)
        loss = F.cross_entropy(out, targets)
        loss.backward()
        right = (out.detach().argmax(-1) == targets).sum()
        return loss.detach(), torch.stack([right, (targets >= 0).sum()])

    return Stepper(model, make_optimizer(model, LR, DECAY), gradients, CLIP, capture, told.append)


def batch(n: int, seed: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = 3 * torch.randn(n, 4, generator=generator)
    return inputs.to(device), torch.randint(5, (n,), generator=generator).to(device)


def run(stepper: Stepper, sizes: list[int]) -> tuple[list[list[float]], int]:
    """Return loss, right, scored and norm of every step, and how many were replayed."""
    rows, replayed = [], 0
    for i, n in enumerate(sizes):
        inputs, targets = batch(n, i, "cuda")
        factor = 1 / (1 + i)
        results = stepper.replay(inputs, targets, factor)
        replayed += results is not None
        if results is None:
            results = stepper.gradients(inputs, targets)
            stepper.update(factor)
        loss, counts, norm = results
        rows.append([float(loss), *counts.tolist(), float(norm)])
    return rows, replayed


@pytest.mark.parametrize("capture", [True, False])
def test_nothing_is_replayed_on_a_cpu(capture: bool) -> None:
    told: list[str] = []
    model = make_model("cpu")
    stepper, before = make_stepper(model, capture, told), copy.deepcopy(model.state_dict())
    assert all(stepper.replay(*batch(6, i), 1.0) is None for i in range(WARM_UP + 2))
    assert not told
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_a_step_is_adamw_on_clipped_gradients() -> None:
    model, plain = make_model("cpu"), make_model("cpu")
    stepper = make_stepper(model, False, [])
    optimizer = torch.optim.AdamW(plain.parameters(), betas=(0.9, 0.98), weight_decay=DECAY)
    for i, factor in enumerate([1.0, 0.3, 0.1]):
        inputs, targets = batch(6, i)
        loss, counts, norm = stepper.gradients(inputs, targets)
        stepper.update(factor)

        want = F.cross_entropy(plain(inputs), targets)
        grads = torch.autograd.grad(want, list(plain.parameters()))
        want_norm = torch.cat([g.flatten() for g in grads]).norm()
        assert want_norm > 2 * CLIP
        for p, g in zip(plain.parameters(), grads, strict=True):
            p.grad = g * CLIP / want_norm
        optimizer.param_groups[0]["lr"] = LR * factor
        optimizer.step()
        torch.testing.assert_close((loss, norm), (want.detach(), want_norm))
        assert int(counts[1]) == 6
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    ("extra", "replays"), [((), 4 + 2 + 1), ((Item(),), 0)], ids=["captured", "refused"]
)
def test_on_cuda_steps_are_the_eager_ones(extra: tuple[nn.Module, ...], replays: int) -> None:
    told: list[str] = []
    sizes = [6] * (WARM_UP + 4) + [9] * (WARM_UP + 2) + [6] * (WARM_UP + 1)
    eager, other = make_model("cuda", *extra), make_model("cuda", *extra)
    want, none = run(make_stepper(eager, False, told), sizes)
    got, replayed = run(make_stepper(other, True, told), sizes)
    assert (none, replayed, len(told)) == (0, replays, 0 if replays else 1)
    assert all(text.startswith("training goes on without a CUDA graph: ") for text in told)
    torch.testing.assert_close(torch.tensor(got), torch.tensor(want), rtol=1e-4, atol=1e-5)
    for a, b in zip(other.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_what_draws_random_numbers_goes_on_after_a_refused_capture() -> None:
    told: list[str] = []
    model = make_model("cuda", Item(), nn.Dropout(0.5))
    _, replayed = run(make_stepper(model, True, told), [6] * (WARM_UP + 3))
    assert (replayed, len(told)) == (0, 1)
    torch.cuda.manual_seed(1)
    first = torch.randn(4, device="cuda")
    torch.cuda.manual_seed(1)
    assert torch.equal(torch.randn(4, device="cuda"), first)
    # The next model of this process can be captured.
    _, replayed = run(make_stepper(make_model("cuda", nn.Dropout(0.5)), True, told), [6] * 6)
    assert replayed == 6 - WARM_UP
    assert len(told) == 1
