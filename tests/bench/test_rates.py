from __future__ import annotations

from mechbench.bench.rates import machine_rates


def test_rates_are_what_a_machine_can_have(device: str) -> None:
    rates = machine_rates(device, "float32")
    assert 0.1 < rates.copy_gb_s < 20_000
    assert 1e-4 < rates.matmul_tflop_s < 5_000
