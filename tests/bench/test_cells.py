from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mechbench.bench import cells
from mechbench.bench.cells import DEFAULT_SDPA, SDPA, count_flops, measure_cell
from mechbench.bench.record import Line, Measured, Setting
from mechbench.operators.base import make_operator, operator_options
from mechbench.registry import register_operator

pytestmark = pytest.mark.usefixtures("clean_registry")
B, L, D = 4, 64, 8
SETTING = Setting(D, B * L, "cpu", "float32", 2)


class Faulty(nn.Module):
    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__()

    def forward(self, u: Tensor) -> Tensor:
        return self.fail(u)


@pytest.mark.parametrize("name", ["attention", "hyena"])
def test_operator_alone(name: str, device: str) -> None:
    dtype = "float32" if device == "cpu" else "bfloat16"
    d_model, length = (D, L) if device == "cpu" else (64, 1024)
    setting = Setting(d_model, 16 * length, device, dtype, 3)
    row = measure_cell(Line(name, operator_options(name, {})), length, setting)
    assert (row.status, row.reason, row.batch) == ("ok", "", 16)
    assert row.measured is not None
    assert row.work is not None
    assert len(row.measured.forward_ms) == len(row.measured.both_ms) == 3
    assert row.measured.forward > 0
    assert (row.measured.peak_mib is None) == (device == "cpu")
    size = 16 * length * d_model * (4 if device == "cpu" else 2)
    assert (row.work.forward_bytes, row.work.both_bytes) == (2 * size, 4 * size)
    if name == "hyena":
        assert row.backend == ("torch" if device == "cpu" else row.backend) != ""
    else:
        assert row.backend in ((DEFAULT_SDPA,) if device == "cpu" else tuple(SDPA))


def test_fft_conv_alone_by_backend(device: str) -> None:
    setting = Setting(D, B * L, device, "float32", 2)
    row = measure_cell(Line("fft_conv/torch", {}, "torch"), L, setting)
    assert (row.status, row.backend) == ("ok", "torch")
    assert row.work is not None
    assert row.work.forward_bytes == 4 * (2 * B + 1) * D * L


def test_backend_that_cannot_run_is_a_row_with_its_reason() -> None:
    row = measure_cell(Line("fft_conv/cufft", {}, "cufft"), L, SETTING)
    assert (row.status, row.measured) == ("not run", None)
    assert row.reason


def test_out_of_memory_is_a_row() -> None:
    @register_operator("greedy", source="a test")
    class Greedy(Faulty):
        def fail(self, u: Tensor) -> Tensor:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 96.00 GiB. GPU 0 has 2.5 GiB free."
            )

    row = measure_cell(Line("greedy"), L, SETTING)
    assert (row.status, row.seqlen, row.batch) == ("out of memory", L, B)
    assert row.reason == "CUDA out of memory. Tried to allocate 96.00 GiB"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda u: u[:, 1:], "OperatorError: operator 'faulty' returned shape (4, 63, 8): "),
        (lambda u: (u, None), "OperatorError: operator 'faulty' returned a tuple: "),
        (lambda u: u @ u, "RuntimeError: "),
    ],
)
def test_fault_of_an_operator_is_a_row_with_one_line(fault: object, says: str) -> None:
    @register_operator("faulty", source="a test")
    class Own(Faulty):
        fail = staticmethod(fault)  # type: ignore[arg-type]

    row = measure_cell(Line("faulty"), L, SETTING)
    assert row.status == "error"
    assert row.reason.startswith(says)
    assert "\n" not in row.reason


def test_flops_of_attention_are_those_of_its_causal_half() -> None:
    module = make_operator("attention", d_model=D, max_seqlen=L)
    projections, products = 2 * B * L * D * 4 * D, 4 * B * L * L * D
    assert count_flops(module, (B, L, D), backward=False) == projections + products / 2
    assert count_flops(module, (B, L, D), backward=True) == 3 * (projections + products / 2)
    eager = make_operator("eager-attention", d_model=D, max_seqlen=L)
    assert count_flops(eager, (B, L, D), backward=False) == projections + products


def test_flops_of_what_needs_data_are_unknown() -> None:
    class Data(nn.Module):
        def forward(self, u: Tensor) -> Tensor:
            return u * u.sum().item()

    assert count_flops(Data(), (B, L, D), backward=True) is None


def test_better_kernel_of_attention_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: dict[object, Measured | str] = {
        SDPA["flash"]: Measured((1.0,), (3.0,), 1.0),
        SDPA["cuDNN"]: Measured((2.0,), (2.5,), 1.0),
    }
    monkeypatch.setattr(cells, "_is_cuda", lambda setting: True)
    monkeypatch.setattr(cells, "_forced", lambda case, setting, kernel: figures[kernel])
    line = Line("attention", operator_options("attention", {}))
    row = cells._operator_row(line, L, SETTING)
    assert (row.backend, row.measured) == ("cuDNN", figures[SDPA["cuDNN"]])
    assert set(row.candidates) == set(SDPA)
    figures[SDPA["cuDNN"]] = "No available kernel."
    assert cells._operator_row(line, L, SETTING).backend == "flash"
    figures[SDPA["flash"]] = "No available kernel."
    assert cells._operator_row(line, L, SETTING).backend == DEFAULT_SDPA
    figures.update(dict.fromkeys(figures, "out of memory"))
    assert cells._operator_row(line, L, SETTING).status == "out of memory"
