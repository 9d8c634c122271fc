from __future__ import annotations

import inspect

import pytest

from mechbench.ops.fft_conv import available_backends
from mechbench.ops.fft_conv.contract import Backend, Core, Mixing, Whole


@pytest.mark.parametrize("name", available_backends())
def test_every_backend_has_the_signatures_of_the_contract(name: str) -> None:
    module = available_backends()[name]
    contracts = [Backend, Core if isinstance(module, Core) else Whole]
    assert isinstance(module.PRIORITY, int)
    if isinstance(module, Mixing):
        contracts.append(Mixing)
    if isinstance(module, Core):
        assert isinstance(module.ANY_SEQLEN, bool)
        assert isinstance(module.TAILS, bool)
    for contract in contracts:
        functions = [v for k, v in vars(contract).items() if not k.startswith("_")]
        for promised in filter(inspect.isfunction, functions):
            given = inspect.signature(getattr(module, promised.__name__)).parameters
            assert list(given) == list(inspect.signature(promised).parameters)[1:]


def test_the_portable_backend_has_no_core_and_the_fast_ones_do() -> None:
    cores = {name: isinstance(module, Core) for name, module in available_backends().items()}
    assert cores == dict.fromkeys(available_backends(), True) | {"torch": False}
    assert [k for k, v in available_backends().items() if isinstance(v, Mixing)] == ["fused"]
