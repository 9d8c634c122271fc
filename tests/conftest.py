from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from mechbench import registry

# Derandomised: a failure in CI is the failure on a desk. Raise max_examples to search wider.
settings.register_profile(
    "mechbench", deadline=None, derandomize=True, max_examples=20, database=None
)
settings.load_profile("mechbench")

_CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    ],
)


@pytest.fixture(scope="session", params=["cpu", _CUDA])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def clean_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what a test registers and loads."""
    for catalogue in (registry.OPERATORS, registry.TASKS):
        catalogue.names()  # discovered outside, so that a test's entries do not stay
        monkeypatch.setattr(catalogue, "entries", dict(catalogue.entries))
    monkeypatch.setattr(registry, "_PLUGINS", dict(registry._PLUGINS))
    monkeypatch.setattr(sys, "path", list(sys.path))  # a plugin's folder is appended
    yield
    for name in [n for n in sys.modules if n.startswith("mechbench_plugin_")]:
        del sys.modules[name]
