from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from mechbench.ops.kernels import nvrtc

ON_CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
SOURCE = """
extern "C" __global__ void fill(float* out, const float* add, int n, long long shift, float scale) {
  extern __shared__ float shared[];
  shared[threadIdx.x] = scale * threadIdx.x + shift;
  __syncthreads();
  int other = blockDim.x - 1 - threadIdx.x, row = blockIdx.x + gridDim.x * blockIdx.y;
  if (other < n) out[row * n + other] = shared[other] + (add ? *add : 0.0f);
}
"""


class Status(Enum):
    GOOD = 0
    BAD = 7


def test_an_answer_is_what_stands_beside_its_status() -> None:
    assert nvrtc._checked((Status.GOOD,)) == ()
    assert nvrtc._checked((Status.GOOD, 5)) == 5
    assert nvrtc._checked((Status.GOOD, 5, 6)) == (5, 6)
    with pytest.raises(RuntimeError, match="CUDA: BAD"):
        nvrtc._checked((Status.BAD, 5))


@pytest.fixture
def bindings(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A binding of which nothing but the two versions is there."""
    module = ModuleType("cuda.bindings")
    module.nvrtc = SimpleNamespace(nvrtcVersion=lambda: (Status.GOOD, 13, 0))  # type: ignore[attr-defined]
    module.driver = SimpleNamespace(cuDriverGetVersion=lambda: (Status.GOOD, 13000))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", module)
    nvrtc.missing.cache_clear()
    yield module
    nvrtc.missing.cache_clear()


def test_what_is_missing_is_told(bindings: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert nvrtc.missing() is None

    def absent() -> None:
        raise RuntimeError("libnvrtc.so.13:\n  no such file")

    bindings.nvrtc.nvrtcVersion = absent
    nvrtc.missing.cache_clear()
    assert nvrtc.missing() == "NVRTC does not load: libnvrtc.so.13: no such file"
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    nvrtc.missing.cache_clear()
    assert "pip install 'mechbench[cuda]'" in str(nvrtc.missing())


def test_values_of_arguments() -> None:
    x = torch.ones(2)
    assert [nvrtc._value(a) for a in (x, None, 3, 0.5)] == [x.data_ptr(), 0, 3, 0.5]


def launch(out: torch.Tensor, add: torch.Tensor | None) -> None:
    nvrtc.module(SOURCE, torch.cuda.current_device()).launch(
        "fill", "ppilf", (out, add, 20, 1 << 33, 0.5), grid=(2, 3), threads=32, shared=60_000
    )


class TestOnCuda:
    pytestmark = ON_CUDA

    @pytest.mark.parametrize("add", [None, 2.0])
    def test_a_kernel_gets_its_arguments(self, add: float | None) -> None:
        out = torch.zeros(6, 20, device="cuda")
        launch(out, None if add is None else torch.tensor(add, device="cuda"))
        want = 0.5 * torch.arange(20.0, device="cuda") + 2.0**33 + (add or 0.0)
        assert torch.equal(out, want.expand(6, 20))

    def test_a_thread_without_a_context_can_launch(self) -> None:
        out = torch.zeros(6, 20, device="cuda")
        thread = threading.Thread(target=launch, args=(out, None))
        thread.start()
        thread.join()
        torch.cuda.synchronize()
        assert out.min() == 2.0**33

    @pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
    def test_a_device_that_is_not_the_current_one(self) -> None:
        out = torch.zeros(6, 20, device="cuda:1")
        module = nvrtc.module(SOURCE, 1)
        arguments = out, None, 20, 1 << 33, 0.5
        module.launch("fill", "ppilf", arguments, grid=(2, 3), threads=32, shared=1000)
        assert out.min() == 2.0**33

    def test_a_graph_captures_a_launch(self) -> None:
        out = torch.zeros(6, 20, device="cuda")
        launch(out, None)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            launch(out, None)
        out.zero_()
        graph.replay()
        assert out.min() == 2.0**33

    def test_what_is_compiled_is_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
        source = nvrtc.Source(SOURCE, "sm_80")
        code = nvrtc.compiled(source)
        assert code.startswith(b"\x7fELF")
        monkeypatch.setattr(nvrtc, "_compile", None)
        assert nvrtc.compiled(source) == code

    def test_what_is_noted_is_not_launched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
        out = torch.zeros(6, 20, device="cuda")
        with nvrtc.noted() as wanted:
            launch(out, None)
            launch(out, None)
        assert out.count_nonzero() == 0
        assert [source.text for source in wanted] == [SOURCE]
        nvrtc.compiled(wanted[0])
        with nvrtc.noted() as wanted:
            launch(out, None)
        assert not wanted

    def test_an_error_of_the_source_is_told(self) -> None:
        with pytest.raises(RuntimeError, match="undefined_name"):
            nvrtc._compile("__global__ void f() { undefined_name; }", "sm_80")
