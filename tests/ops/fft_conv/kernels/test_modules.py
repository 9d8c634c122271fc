from __future__ import annotations

from typing import Any

import pytest
import torch

from mechbench.ops.fft_conv.kernels import modules
from mechbench.ops.fft_conv.kernels.modules import Modules


def test_each_form_is_compiled_once_from_its_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(modules, "compiled", lambda *names, **rest: asked.append((names, rest)))
    device = torch.device("cuda", 1)
    both = Modules("steps", torch.bfloat16, device, WIDTH=16)
    for _ in range(2):
        assert both.plain is both.mixing is None
    (plain, given), (mixing, again) = asked
    assert plain == ("steps.cuh", "steps.cu")
    assert mixing == ("steps.cuh", "pieces.cuh", "steps_mix.cu")
    expected = {"device": device, "REAL": "Bfloat16", "WIDTH": 16}
    assert given == again == expected
