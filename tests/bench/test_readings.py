from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mechbench.bench import readings
from mechbench.bench.readings import DEFAULT_SDPA, SDPA, count_flops, take_reading
from mechbench.bench.record import Line, Measured, Setting
from mechbench.catalogue.registry import register_operator
from mechbench.operators.base import make_operator, operator_options

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
    reading = take_reading(Line(name, operator_options(name, {})), length, setting)
    assert (reading.status, reading.reason, reading.batch) == ("ok", "", 16)
    assert reading.measured is not None
    assert reading.work is not None
    assert len(reading.measured.forward_ms) == len(reading.measured.both_ms) == 3
    assert reading.measured.forward > 0
    assert (reading.measured.peak_mib is None) == (device == "cpu")
    size = 16 * length * d_model * (4 if device == "cpu" else 2)
    assert (reading.work.forward_bytes, reading.work.both_bytes) == (2 * size, 4 * size)
    if name == "hyena":
        assert reading.backend == ("torch" if device == "cpu" else reading.backend) != ""
    else:
        assert reading.backend in ((DEFAULT_SDPA,) if device == "cpu" else tuple(SDPA))


def test_fft_conv_alone_by_backend(device: str) -> None:
    setting = Setting(D, B * L, device, "float32", 2)
    reading = take_reading(Line("fft_conv/torch", {}, "torch"), L, setting)
    assert (reading.status, reading.backend) == ("ok", "torch")
    assert reading.work is not None
    assert reading.work.forward_bytes == 4 * (2 * B + 1) * D * L


def test_backend_that_cannot_run_is_a_row_with_its_reason() -> None:
    reading = take_reading(Line("fft_conv/cufft", {}, "cufft"), L, SETTING)
    assert (reading.status, reading.measured) == ("not run", None)
    assert reading.reason


def test_out_of_memory_is_a_row() -> None:
    @register_operator("greedy", source="a test")
    class Greedy(Faulty):
        def fail(self, u: Tensor) -> Tensor:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 96.00 GiB. GPU 0 has 2.5 GiB free."
            )

    reading = take_reading(Line("greedy"), L, SETTING)
    assert (reading.status, reading.seqlen, reading.batch) == ("out of memory", L, B)
    assert reading.reason == "CUDA out of memory. Tried to allocate 96.00 GiB"


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

    reading = take_reading(Line("faulty"), L, SETTING)
    assert reading.status == "error"
    assert reading.reason.startswith(says)
    assert "\n" not in reading.reason


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
    monkeypatch.setattr(readings, "_is_cuda", lambda setting: True)
    monkeypatch.setattr(readings, "_forced", lambda case, setting, kernel: figures[kernel])
    line = Line("attention", operator_options("attention", {}))
    reading = readings._operator_reading(line, L, SETTING)
    assert (reading.backend, reading.measured) == ("cuDNN", figures[SDPA["cuDNN"]])
    assert set(reading.candidates) == set(SDPA)
    figures[SDPA["cuDNN"]] = "No available kernel."
    assert readings._operator_reading(line, L, SETTING).backend == "flash"
    figures[SDPA["flash"]] = "No available kernel."
    assert readings._operator_reading(line, L, SETTING).backend == DEFAULT_SDPA
    figures.update(dict.fromkeys(figures, "out of memory"))
    assert readings._operator_reading(line, L, SETTING).status == "out of memory"
