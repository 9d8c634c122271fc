from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mechbench.errors import ConfigError
from mechbench.ops.fft_conv import available_backends, fft_conv, fft_conv_reference
from mechbench.ops.hyena_mix import hyena_mix
from mechbench.ops.short_conv import short_conv_reference
from ops.conftest import kernel_device, relative_error  # noqa: F401

BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def inputs(L: int, device: str) -> list[Tensor]:
    B, D, K = 2, 4, 3
    shapes = ((B, 3 * D, L), (3 * D,), (3 * D, K), (3 * D,), (D, L), (D,))
    torch.manual_seed(L)
    return [torch.randn(shape, device=device) for shape in shapes]


def reference(p: Tensor, in_bias: Tensor, taps: Tensor, bias: Tensor, *rest: Tensor) -> Tensor:
    v, x1, x2 = short_conv_reference(p + in_bias[:, None], taps, bias).chunk(3, 1)
    return fft_conv_reference(v, *rest, x1, x2)


def compare(backend: str, device: str, L: int, dtype: torch.dtype, tolerance: float) -> None:
    exact = [t.to(dtype).double() for t in inputs(L, device)]
    got = [t.to(dtype).requires_grad_() for t in exact]
    for t in exact:
        t.requires_grad_()
    y, want = hyena_mix(*got, backend=backend), reference(*exact)
    assert y.dtype == dtype
    assert relative_error(y, want) < tolerance
    grad = torch.randn_like(y)
    pairs = zip(
        torch.autograd.grad(y, got, grad),
        torch.autograd.grad(want, exact, grad.double()),
        strict=True,
    )
    for ours, theirs in pairs:
        assert relative_error(ours, theirs) < tolerance


@pytest.mark.parametrize("L", [1, 2, 5, 33, 130])
def test_torch_backend_is_the_formula(L: int) -> None:
    compare("torch", "cpu", L, torch.float32, 1e-5)


@pytest.mark.parametrize("L", [1, 2, 5, 33, 130, 1500])
def test_fused_kernels_are_the_formula(kernel_device: str, L: int) -> None:  # noqa: F811
    compare("cufft", kernel_device, L, torch.float32, 1e-5)


@pytest.mark.parametrize("L", [1, 5, 130, 1026])
def test_toeplitz_is_the_formula_to_bfloat16(kernel_device: str, L: int) -> None:  # noqa: F811
    compare("toeplitz", kernel_device, L, torch.bfloat16, 2e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("L", [2000, 2048, 2050, 4093, 8192, 8194, 16384, 30001, 32775, 131072])
def test_gates_in_the_transforms_equal_float64(L: int, dtype: torch.dtype) -> None:
    p, *low, h, skip = inputs(L, "cuda")
    rows = torch.empty(*p.shape[:2], -(-L // 16) * 16, device="cuda")[..., :L].copy_(p)
    # With these filters no sum is too large for half precision.
    low = [t.to(dtype).requires_grad_() for t in (rows, *low, h / L**0.5, skip)]
    exact = [t.detach().double().requires_grad_() for t in low]
    p, in_bias, taps, bias, *rest = exact
    v, x1, x2 = short_conv_reference(p + in_bias[:, None], taps, bias).chunk(3, 1)
    y, want = hyena_mix(*low, backend="fused"), fft_conv(v, *rest, x1, x2, backend="torch")
    assert relative_error(y, want) < BOUNDS[dtype]
    dy = torch.randn_like(y) / L**0.5
    grads = torch.autograd.grad(y, low, dy), torch.autograd.grad(want, exact, dy.double())
    for ours, theirs in zip(*grads, strict=True):
        assert ours.dtype == dtype
        assert relative_error(ours, theirs) < BOUNDS[dtype]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_rows_that_begin_anywhere_in_memory() -> None:
    p, *rest = inputs(2048, "cuda")
    wide = torch.randn(2, 12, 2053, device="cuda")
    wide[..., 3:2051] = p
    assert relative_error(hyena_mix(wide[..., 3:2051], *rest), hyena_mix(p, *rest)) < 1e-6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("L", [128, 130, 200, 1026, 16384, 32768, 32770, 40000])
def test_subquadratic_is_the_formula_to_bfloat16(L: int) -> None:
    u, h = torch.empty(1, 1, L, device="cuda", dtype=torch.bfloat16), torch.empty(1, L)
    reason = available_backends()["subquadratic"].unsupported(u, h.cuda())
    if reason:
        pytest.skip(reason)
    if L <= 2048:
        compare("subquadratic", "cuda", L, torch.bfloat16, 2e-2)
        return
    # Too long for the direct sum: cuFFT in float32, tested above, stands in for it.
    start = [t.bfloat16() for t in inputs(L, "cuda")]
    results = []
    for backend, dtype in (("subquadratic", torch.bfloat16), ("cufft", torch.float32)):
        args = [t.to(dtype).requires_grad_() for t in start]
        y = hyena_mix(*args, backend=backend)
        results.append([y, *torch.autograd.grad(y, args, torch.ones_like(y))])
    for ours, theirs in zip(*results, strict=True):
        assert relative_error(ours, theirs) < 2e-2


def test_unknown_backend_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown fft_conv backend 'cufftt'"):
        hyena_mix(*inputs(4, "cpu"), backend="cufftt")
