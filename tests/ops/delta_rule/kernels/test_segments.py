from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from mechbench.ops import delta_product, delta_rule, delta_rule_reference
from mechbench.ops.delta_rule.kernels import segments
from ops.conftest import relative_error
from ops.delta_rule.kernels.test_backward import with_gradients
from ops.delta_rule.kernels.test_forward import B, H, draw


def cut_into(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Make as many segments of a call, or almost, whatever its length."""
    monkeypatch.setattr(segments, "_PROGRAMS", B * H * count)
    monkeypatch.setattr(segments, "_LEAST", 1)
    monkeypatch.setattr(segments, "_FEWEST", 2)


def several(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    """Compute `delta_product` step by step."""
    n = k.shape[3]
    q = q.repeat_interleave(n, 2)
    return delta_rule_reference(q, k.flatten(2, 3), v.flatten(2, 3), g, beta)[:, :, n - 1 :: n]


def assert_close(ours: Sequence[Tensor], exact: Sequence[Tensor], bound: float) -> None:
    for got, expected in zip(ours, exact, strict=True):
        assert got.shape == expected.shape
        assert relative_error(got, expected) < bound


@pytest.mark.parametrize("heads", [1, 8, 66, 67, 264, 512, 4096])
@pytest.mark.parametrize("chunks", [1, 8, 31, 32, 33, 100, 2048, 2049])
def test_every_chunk_has_its_segment(heads: int, chunks: int) -> None:
    span, count = segments.cut(heads, chunks)
    assert (count - 1) * span < chunks <= count * span
    assert count == 1 or (count >= 4 and span >= 8)
    assert (count == 1) == (chunks < 32 or heads > 66)
    if chunks > 2000 and count > 1:
        assert heads * count >= min(200, heads * chunks / 10)


@pytest.mark.parametrize(
    ("count", "L", "K", "P", "decay"),
    [
        (2, 65, 8, 8, 1.0),
        (3, 300, 8, 16, 1.0),
        (4, 500, 20, 24, 0.0),
        (5, 320, 16, 8, 30.0),
        (9, 500, 8, 72, 0.1),
        (3, 130, 128, 40, 0.1),
    ],
)
def test_segments_give_the_values_and_gradients_of_the_steps(
    kernel_device: str,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    L: int,
    K: int,
    P: int,
    decay: float,
) -> None:
    q, k, v, g, beta = draw(L, K, P, 2.0)
    given, dy = [q, k, v, decay * g, beta], torch.randn(B, H, L, P, dtype=torch.float64)
    low = [x.to(kernel_device, torch.float32) for x in given]
    cut_into(monkeypatch, count)
    ours = with_gradients(delta_rule, low, dy.to(kernel_device, torch.float32))
    assert_close(ours, with_gradients(delta_rule_reference, given, dy), 5e-5)


@pytest.mark.parametrize(("count", "L", "n"), [(3, 70, 3), (4, 129, 2)])
def test_segments_may_end_within_a_token(
    kernel_device: str, monkeypatch: pytest.MonkeyPatch, count: int, L: int, n: int
) -> None:
    q, k, v, g, beta = draw(L * n, 8, 16, 2.0)
    k, v = (x.unflatten(2, (L, n)) for x in (k, v))
    given, dy = [q[:, :, ::n], k, v, g, beta], torch.randn(B, H, L, 16, dtype=torch.float64)
    low = [x.to(kernel_device, torch.float32) for x in given]
    cut_into(monkeypatch, count)
    ours = with_gradients(delta_product, low, dy.to(kernel_device, torch.float32))
    assert_close(ours, with_gradients(several, given, dy), 5e-5)


def test_reflections_are_kept_over_all_segments(
    kernel_device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """beta 2 and no decay: every step reflects the state, which stays as large as it was."""
    q, k, v, g, beta = draw(700, 8, 8)
    v[:, :, 1:] = 0.0
    given, dy = [q, k, v, 0 * g, 2 + 0 * beta], torch.randn(B, H, 700, 8, dtype=torch.float64)
    low = [x.to(kernel_device, torch.float32) for x in given]
    cut_into(monkeypatch, 11)
    ours = with_gradients(delta_rule, low, dy.to(kernel_device, torch.float32))
    assert_close(ours, with_gradients(delta_rule_reference, given, dy), 1e-4)
    assert ours[0][:, :, -64:].norm() > 0.5 * ours[0][:, :, :64].norm()


def test_half_types_and_autocast_are_as_exact_in_segments(
    kernel_device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [x.bfloat16() for x in draw(400, 16, 32, 2.0)]
    given[3:] = [x.float() for x in given[3:]]
    dy = torch.randn(B, H, 400, 32).bfloat16()
    exact = with_gradients(delta_rule_reference, [x.double() for x in given], dy.double())
    cut_into(monkeypatch, 5)
    low = [x.to(kernel_device) for x in given]
    with torch.autocast(kernel_device, torch.bfloat16):
        ours = with_gradients(delta_rule, low, dy.to(kernel_device))
    assert [x.dtype for x in ours] == [torch.bfloat16] * 4 + [torch.float32] * 2
    assert_close(ours, exact, 8e-3)


def test_strides_do_not_matter(kernel_device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, dy = draw(200, 16, 16), torch.randn(B, H, 16, 200, dtype=torch.float64).mT
    low = [x.to(kernel_device, torch.float32) for x in given]
    low[1] = low[1].mT.contiguous().mT
    low[4] = low[4].mT.contiguous().mT
    cut_into(monkeypatch, 3)
    ours = with_gradients(delta_rule, low, dy.to(kernel_device, torch.float32))
    assert_close(ours, with_gradients(delta_rule_reference, given, dy), 5e-5)
