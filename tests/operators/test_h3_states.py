from __future__ import annotations

import pytest
import torch

from mechbench.operators.h3_states import BilinearStates, ShiftStates

D, N = 3, 6


@pytest.mark.parametrize("L", [1, 5, 17])
def test_diagonal_taps_are_the_impulse_response_of_the_discretised_system(L: int) -> None:
    torch.manual_seed(0)
    states = BilinearStates(D, 32, d_state=N).double()
    torch.nn.init.normal_(states.B)
    with torch.no_grad():
        taps = states(L)[0]
        for d in range(D):
            expected = torch.zeros(L).double()
            for n in range(N // 2):
                dt, A = states.log_dt[0, d].exp(), complex(
                    -states.log_decay[0, d, n].exp(), states.turn[0, d, n]
                )  # fmt: skip
                B, C = (complex(*x[0, d, n].tolist()) for x in (states.B, states.C))
                # x_t - x_{t-1} = dt A (x_t + x_{t-1}) / 2 + dt B u_t, from rest, u an impulse
                x = 0j
                for t in range(L):
                    x = ((1 + dt * A / 2) * x + dt * B * (t == 0)) / (1 - dt * A / 2)
                    expected[t] += 2 * (C * x).real
            torch.testing.assert_close(taps[d], expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("L", [1, 4, N, 9])
def test_shift_taps_correlate_the_input_and_output_matrices(L: int) -> None:
    torch.manual_seed(0)
    states = ShiftStates(D, d_state=N).double()
    torch.testing.assert_close(states(N)[0], states.C)  # B starts at the first unit vector
    torch.nn.init.normal_(states.B)
    taps = states(L)[0]
    for t in range(L):
        expected = sum(
            (states.B[:, m] * states.C[:, m + t] for m in range(N - t)), torch.zeros(D).double()
        )
        torch.testing.assert_close(taps[:, t], expected, rtol=1e-12, atol=1e-12)


def test_input_matrices_are_trained() -> None:
    for states in (BilinearStates(D, 32, d_state=N), ShiftStates(D, d_state=N)):
        states(8).square().sum().backward()
        assert states.B.grad.abs().max() > 0
        assert all(p.optim["weight_decay"] == 0.0 for p in states.parameters())
