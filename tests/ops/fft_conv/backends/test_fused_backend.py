from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mechbench.ops.fft_conv import choose_backend, fft_conv
from mechbench.ops.fft_conv.backends import fused_backend as backend
from mechbench.ops.kernels import nvrtc
from ops.conftest import relative_error

ON_CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine where everything that is needed seems to be there."""
    properties = SimpleNamespace(
        shared_memory_per_block=49152, shared_memory_per_block_optin=232448
    )
    monkeypatch.setattr(backend, "unavailable", lambda *_: None)
    monkeypatch.setattr(backend, "interpreted", lambda: False)
    monkeypatch.setattr(nvrtc, "missing", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    return properties


def reason(L: int, dtype: torch.dtype = torch.float32) -> str | None:
    return backend.unsupported(torch.empty(1, 1, L, dtype=dtype), torch.empty(1, L))


@pytest.mark.parametrize(
    ("L", "dtype", "told"),
    [
        (1500, torch.float32, None),
        (1100, torch.float32, "1100 tokens are too few for a transform of 2048"),
        (1024, torch.float32, "a transform of 1024: expected 2048 to 1048576"),
        (1750, torch.bfloat16, "1750 tokens of torch.bfloat16: below 1760 the direct sum costs"),
        (1760, torch.float16, None),
        (2056, torch.bfloat16, None),  # 2,048 and a few, summed directly
        (2057, torch.bfloat16, "2057 tokens are too few for a transform of 4096"),
        (131072, torch.bfloat16, None),
        ((1 << 20) + 8, torch.float32, None),
        ((1 << 20) + 9, torch.float32, "a transform of 2097152: expected 2048 to 1048576"),
    ],
)
def test_lengths(everywhere: None, L: int, dtype: torch.dtype, told: str | None) -> None:
    given = reason(L, dtype)
    assert given is told if told is None else str(given).startswith(told)


def test_what_is_missing_is_told(
    everywhere: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere.shared_memory_per_block_optin = 60_000
    assert reason(4096) is None
    assert reason(8192) == "a block has 60000 bytes of shared memory, expected 69632"
    monkeypatch.setattr(nvrtc, "missing", lambda: "no NVRTC")
    assert reason(4096) == "no NVRTC"
    monkeypatch.setattr(backend, "interpreted", lambda: True)
    assert "interpreter" in str(reason(4096))
    monkeypatch.setattr(backend, "unavailable", lambda *_: "no device")
    assert reason(4096) == "no device"


@pytest.mark.parametrize("n", [1 << k for k in range(11, 21)])
def test_every_length_has_kernels_that_fit(n: int) -> None:
    assert 0 < backend._kernels(n).shared_bytes(n) <= 227 * 1024


@pytest.mark.parametrize(
    ("L", "width", "tokens"),
    [
        (2048, 2048, 2048),
        (2050, 2064, 2048),  # the last two are the caller's
        (2050, 2050, 0),  # rows that begin anywhere
        (2000, 2000, 2000),
        (2004, 2016, 0),  # no whole pieces
        (131074, 131088, 131072),
    ],
)
def test_tokens_that_gates_are_computed_for(L: int, width: int, tokens: int) -> None:
    p = torch.empty(2, 3, width, dtype=torch.bfloat16)[..., :L]
    assert backend.mixes(p) == tokens


def test_where_a_single_sequence_begins_is_no_step() -> None:
    rows = torch.empty(6, 2064, dtype=torch.bfloat16)[:, :2050]
    assert backend.mixes(rows.unflatten(1, (1, 2050)).transpose(0, 1)) == 2048


@pytest.mark.parametrize("L", [8, 9])
def test_rows_are_copied_where_they_begin_anywhere(L: int) -> None:
    x = torch.randn(2, 3, L)
    rows = backend._pieces(x)
    assert torch.equal(rows, x)
    assert (rows is x) == (L == 8)
    assert backend._in_pieces(rows)


class TestOnCuda:
    pytestmark = ON_CUDA

    @pytest.mark.parametrize("L", [2050, 6000, 8192, 8200, 16384, 32775])
    @pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
    def test_equals_float64(self, L: int, dtype: torch.dtype, bound: float) -> None:
        shapes = ((2, 5, L), (5, L), (5,), (2, 5, L), (2, 5, L))
        low = [torch.randn(s, device="cuda").to(dtype).requires_grad_() for s in shapes]
        exact = [x.detach().double().requires_grad_() for x in low]
        assert choose_backend(low[0], low[1]) == "fused"
        y, want = fft_conv(*low), fft_conv(*exact)
        assert y.dtype == dtype
        assert relative_error(y, want) < bound
        grads = torch.autograd.grad(y, low, torch.ones_like(y))
        wanted = torch.autograd.grad(want, exact, torch.ones_like(want))
        for got, expected in zip(grads, wanted, strict=True):
            assert got.dtype == dtype
            assert relative_error(got, expected) < bound

    @pytest.mark.parametrize("L", [4096, 32768])
    def test_a_graph_computes_the_same(self, L: int) -> None:
        u, h = (torch.randn(s, device="cuda", requires_grad=True) for s in ((2, 3, L), (3, L)))

        def step() -> tuple[torch.Tensor, ...]:
            return torch.autograd.grad(fft_conv(u, h, backend="fused").square().sum(), (u, h))

        want = step()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            got = step()
        graph.replay()
        for g, w in zip(got, want, strict=True):
            assert torch.equal(g, w)
