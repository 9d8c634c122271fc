from __future__ import annotations

import math
import re

import pytest
import torch

from mechbench.ops.fft_conv import cuda


def test_the_table_of_cosines() -> None:
    source = cuda._text("fft.cuh")
    table = re.search(r"table\[33\] = \{(.*?)\}", source, re.DOTALL)
    assert table
    values = [float(v.strip().removesuffix("f")) for v in table[1].split(",")]
    assert values == pytest.approx([math.cos(math.pi * k / 64) for k in range(33)], abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_types_of_real_numbers_are_those_of_the_source(dtype: torch.dtype) -> None:
    name = cuda.reals(dtype)
    assert name == "float" or f"struct {name} " in cuda._text("real.cuh")


def test_sources_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    sources: list[str] = []
    monkeypatch.setattr(cuda, "module", lambda source, _: sources.append(source))
    device = torch.device("cuda", 0)
    cuda.compiled("whole.cuh", "whole.cu", device=device, RADICES="4,2", ELEMENTS=4)
    (source,) = sources
    assert source.startswith("#define RADICES 4,2\n#define ELEMENTS 4\n")
    for name in ("struct Transform", "read_twisted(", " spectra("):
        assert source.count(name) == 1
