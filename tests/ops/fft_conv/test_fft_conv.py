from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mechbench.errors import ConfigError
from mechbench.ops import fft_conv, fft_conv_reference
from mechbench.ops.fft_conv import (
    available_backends,
)
from mechbench.ops.used import forget_ops_used, ops_used
from ops.conftest import relative_error

NAMES = ("u", "h", "skip", "pre_gate", "post_gate")
LENGTHS = st.sampled_from([1, 2, 3, 7, 31, 64, 97, 127, 128, 129]) | st.integers(1, 160)
Arguments = dict[str, Tensor | None]


def arguments(
    L: int, K: int, *, B: int = 2, D: int = 3, seed: int = 0, without: tuple[str, ...] = ()
) -> Arguments:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"u": (B, D, L), "h": (D, K), "skip": (D,), "pre_gate": (B, D, L)}
    shapes["post_gate"] = (B, D, L)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        if name not in without
        else None
        for name, shape in shapes.items()
    }


def cast(given: Arguments, *to: torch.dtype | str) -> Arguments:
    for target in to:
        given = {k: None if v is None else v.to(target) for k, v in given.items()}
    return given


@given(
    L=LENGTHS,
    K=LENGTHS,
    B=st.integers(1, 3),
    D=st.integers(1, 4),
    without=st.sets(st.sampled_from(NAMES[2:])),
    seed=st.integers(0, 2**31),
)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_equals_the_direct_sum(
    device: str,
    dtype: torch.dtype,
    bound: float,
    L: int,
    K: int,
    B: int,
    D: int,
    without: set[str],
    seed: int,
) -> None:
    exact = arguments(L, K, B=B, D=D, seed=seed, without=tuple(without))
    y = fft_conv(**cast(exact, dtype, device))
    assert y.dtype == dtype
    assert y.shape == (B, D, L)
    assert relative_error(y, fft_conv_reference(**exact)) < bound


def test_reference_is_the_sum_in_the_docstring() -> None:
    a = {k: v.numpy() for k, v in arguments(5, 3, B=1, D=2).items() if v is not None}
    expected = torch.zeros(1, 2, 5, dtype=torch.float64)
    for d in range(2):
        v = a["pre_gate"][0, d] * a["u"][0, d]
        for t in range(5):
            total = sum(a["h"][d, t - s] * v[s] for s in range(t + 1) if t - s < 3)
            expected[0, d, t] = a["post_gate"][0, d, t] * (total + a["skip"][d] * v[t])
    assert relative_error(fft_conv_reference(**arguments(5, 3, B=1, D=2)), expected) < 1e-14


@pytest.mark.parametrize("K", [3, 7, 11])
@pytest.mark.parametrize("without", [(), ("skip",), ("pre_gate",), ("post_gate",), NAMES[2:]])
def test_gradcheck_of_all_arguments(K: int, without: tuple[str, ...]) -> None:
    given = arguments(7, K, D=2, without=without)
    inputs = tuple(None if v is None else v.requires_grad_() for v in given.values())
    assert torch.autograd.gradcheck(fft_conv, inputs)


@pytest.mark.parametrize("wanted", NAMES)
def test_gradcheck_where_one_argument_alone_needs_it(wanted: str) -> None:
    given = arguments(7, 5, D=2)
    given[wanted] = given[wanted].requires_grad_()
    assert torch.autograd.gradcheck(fft_conv, tuple(given.values()))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("L", [1, 97, 128])
def test_gradients_equal_those_of_the_direct_sum(
    device: str, dtype: torch.dtype, bound: float, L: int
) -> None:
    exact = cast(arguments(L, L), dtype, torch.float64)  # the same rounded numbers for both
    low = {k: v.to(device, dtype).requires_grad_() for k, v in exact.items()}
    high = {k: v.requires_grad_() for k, v in exact.items()}
    dy = torch.randn(2, 3, L, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    dy = dy.to(dtype).double()
    fft_conv(**low).backward(dy.to(device, dtype))
    fft_conv_reference(**high).backward(dy)
    for name in NAMES:
        assert low[name].grad.dtype == dtype
        assert relative_error(low[name].grad, high[name].grad) < bound, name


def test_bfloat16_is_close_to_float32_and_keeps_its_type(device: str) -> None:
    rounded = cast(arguments(256, 256), device, torch.bfloat16)
    y = fft_conv(**rounded)
    assert y.dtype == torch.bfloat16
    assert relative_error(y, fft_conv(**cast(rounded, torch.float32))) < 1e-2


@pytest.mark.parametrize("wide", NAMES[1:])
def test_output_has_the_type_of_u_whatever_the_others_have(wide: str) -> None:
    given = cast(arguments(16, 16), torch.bfloat16)
    given[wide] = given[wide].float()
    assert fft_conv(**given).dtype == torch.bfloat16


def test_is_linear_in_the_input_and_in_the_filter() -> None:
    a, b = arguments(33, 33, seed=0), arguments(33, 33, seed=1)
    for name in ("u", "h"):
        mixed = {**a, "skip": None, name: 2 * a[name] - 3 * b[name]}
        parts = [fft_conv(**{**a, "skip": None, name: x[name]}) for x in (a, b)]
        assert relative_error(fft_conv(**mixed), 2 * parts[0] - 3 * parts[1]) < 1e-12


@given(L=st.integers(2, 100), by=st.integers(1, 99))
def test_commutes_with_a_shift_in_time(L: int, by: int) -> None:
    by = min(by, L - 1)
    a = arguments(L, L, without=("pre_gate", "post_gate"))
    later = torch.nn.functional.pad(a["u"], (by, 0))[..., :L]
    y = fft_conv(**a)
    assert relative_error(fft_conv(**{**a, "u": later})[..., by:], y[..., :-by]) < 1e-12


@pytest.mark.parametrize("L", [2, 17, 128])
def test_outputs_do_not_depend_on_later_inputs(L: int) -> None:
    a = arguments(L, L)
    y = fft_conv(**a)
    cut = L // 2
    for name in ("u", "pre_gate", "post_gate"):
        changed = a[name].clone()
        changed[..., cut:] += 10
        moved = (fft_conv(**{**a, name: changed}) - y)[..., :cut].abs().max()
        assert moved < 1e-12 * L


def test_taps_beyond_the_input_have_no_effect_and_no_gradient() -> None:
    a = arguments(9, 20)
    a["h"].requires_grad_()
    fft_conv(**a).sum().backward()
    assert torch.equal(a["h"].grad[:, 9:], torch.zeros(3, 11, dtype=torch.float64))
    assert torch.equal(fft_conv(**a), fft_conv(**{**a, "h": a["h"][:, :9]}))


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("u", (3, 8), r"u has shape \(3, 8\): expected \(B, D, L\)"),
        ("u", (2, 3, 0), "L of at least 1"),
        ("h", (4, 8), "expected .* with D = 3"),
        ("h", (3, 0), "expected .* with D = 3"),
        ("h", (8,), "expected .* with D = 3"),
        ("skip", (3, 1), r"skip has shape \(3, 1\): expected \(3,\)"),
        ("pre_gate", (2, 3, 1), "pre_gate .* expected"),
        ("post_gate", (1, 3, 8), "post_gate .* expected"),
    ],
)
@pytest.mark.parametrize("function", [fft_conv, fft_conv_reference])
def test_shapes_that_do_not_match_raise(
    function: object, name: str, shape: tuple[int, ...], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        function(**{**arguments(8, 8), name: torch.zeros(shape, dtype=torch.float64)})


def test_unknown_backend_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'torch'"):
        fft_conv(**arguments(4, 4), backend="torhc")


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("name", ["u", "h"])
def test_integers_raise_and_name_the_culprit(backend: str, name: str) -> None:
    given = arguments(4, 4, without=NAMES[2:])
    given[name] = given[name].long()
    with pytest.raises(ConfigError, match=f"{name} is torch.int64"):
        fft_conv(**given, backend=backend)


@pytest.mark.parametrize("backend", list(available_backends()))
def test_every_backend_agrees_or_says_why_it_cannot_run(backend: str, device: str) -> None:
    exact = arguments(130, 130)
    low = cast(exact, torch.float32, device)
    if available_backends()[backend].unsupported(low["u"], low["h"]) is not None:
        with pytest.raises(ConfigError, match=f"{backend}' cannot run"):
            fft_conv(**low, backend=backend)
        return
    y = fft_conv(**low, backend=backend)
    assert relative_error(y, fft_conv_reference(**exact)) < 2e-3
    assert backend in ops_used(device)["fft_conv"].split(", ")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("L", [131072, 131074])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_long_inputs_on_cuda_equal_float64_on_the_cpu(
    L: int, dtype: torch.dtype, bound: float
) -> None:
    exact = cast(arguments(L, L, B=1, D=2), dtype, torch.float64)
    low = {k: v.to("cuda", dtype).requires_grad_() for k, v in exact.items()}
    high = {k: v.requires_grad_() for k, v in exact.items()}
    y, expected = fft_conv(**low), fft_conv(**high)
    assert relative_error(y, expected) < bound
    y.sum().backward()
    expected.sum().backward()
    for name in NAMES:
        assert relative_error(low[name].grad, high[name].grad) < bound, name


def test_backends_are_recorded_where_they_ran() -> None:
    forget_ops_used()
    u, h = torch.ones(1, 2, 4, device="meta"), torch.ones(2, 4, device="meta")
    fft_conv(u, h, backend="torch")  # a count of FLOPs
    assert ops_used("cpu") == {}
    fft_conv(torch.ones(1, 2, 4), torch.ones(2, 4), backend="torch")
    assert ops_used("cpu") == {"fft_conv": "torch"}
