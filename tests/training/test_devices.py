from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mechbench
from mechbench.checks.examination import check_operator
from mechbench.training.devices import on

SECOND_GPU = (
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second CUDA device"),
)


def test_a_cpu_needs_no_context() -> None:
    with on("cpu"):
        assert torch.ones(1).device.type == "cpu"


@pytest.mark.parametrize(
    "operator", [pytest.param(name, marks=SECOND_GPU) for name in ("hyena", "attention", "mamba2")]
)
def test_a_second_gpu_trains_as_the_first_does(operator: str, tmp_path: Path) -> None:
    found = [
        mechbench.run(
            operator, "recall", seqlen=256, budget_tokens=2_000_000, device=device,
            out=tmp_path / device, quiet=True,
        )
        for device in ("cuda:0", "cuda:1")
    ]  # fmt: skip
    assert [result.status for result in found] == ["ok", "ok"]
    assert found[0].accuracy() == found[1].accuracy()
    assert torch.cuda.current_device() == 0


@pytest.mark.parametrize("operator", [pytest.param("hyena", marks=SECOND_GPU)])
def test_a_second_gpu_is_checked(operator: str) -> None:
    examination = check_operator(operator, {}, d_model=32, seqlen=256, device="cuda:1", seed=0)
    assert {finding.verdict for finding in examination.sections["soundness"]} == {"PASS"}


CUBLAS_FIRST = """
import warnings
import torch
from mechbench.training.devices import wake_autograd

warnings.simplefilter("error")


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x, out := torch.empty_like(x))
        return x.clone()

    @staticmethod
    def backward(ctx, dy):
        x, out = ctx.saved_tensors
        return torch.mm(x, dy, out=out)


x, dy = (torch.ones(8, 8, device="cuda") for _ in range(2))
y = Product.apply(x.requires_grad_())
wake_autograd("cuda")
y.backward(dy)
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cublas_is_not_the_first_in_the_thread_of_backward_passes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CUBLAS_FIRST], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
