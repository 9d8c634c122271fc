from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.ops.fft_conv.backends.torch_backend import conv, transform_length


@given(st.integers(1, 1 << 22))
def test_transform_length_is_enough_fast_and_never_much_more(minimum: int) -> None:
    n = transform_length(minimum)
    assert n >= minimum
    assert n // (n & -n) in (1, 3, 5, 9, 15)
    # 8, 9, 10, 12, 15, 16: the largest step is 5/4, from 12 to 15
    assert n < 1.25 * minimum + 1


def test_transform_length_is_the_smallest_of_its_form() -> None:
    forms = sorted(odd << a for odd in (1, 3, 5, 9, 15) for a in range(14))
    for minimum in range(1, 5000):
        assert transform_length(minimum) == next(n for n in forms if n >= minimum)


def test_transform_of_the_long_setting_has_no_large_prime() -> None:
    assert transform_length(2 * 131072) == 2 * 131072
    assert transform_length(2 * 131074 - 1) == 9 << 15


def test_backward_keeps_inputs_not_spectra() -> None:
    sizes: list[int] = []
    u = torch.randn(2, 3, 64, requires_grad=True)
    h = torch.randn(3, 64, requires_grad=True)
    gate = torch.randn(2, 3, 64)

    def note(x: torch.Tensor) -> torch.Tensor:
        sizes.append(x.numel() * x.element_size())
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        conv(u, h, torch.randn(3), gate, gate)
    assert max(sizes) == u.numel() * 4
    assert sum(sizes) <= 4 * u.numel() * 4 + h.numel() * 4 + 12
