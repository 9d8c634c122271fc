"""The weights of the released Hyena operator, by the names that `hyena` gives them.

| released | here, with `filter=released` |
|---|---|
| in_proj: x^N .. x^1, v, D rows each | in_proj: the same blocks, last first |
| short_filter.weight (.., 1, K), oldest tap first | short_weight (.., K), newest tap first |
| its blocks, v last | the same blocks, last first |
| short_filter.bias | short_bias, blocks last first |
| filter_fn.bias (D N), channel d N + n | skip (N, D) |
| filter_fn.implicit_filter.0, 2, .. | filter.inner.0, 1, .. |
| filter_fn.implicit_filter.1.freq (1, width), shared | filter.sine.freq (width) |
| filter_fn.implicit_filter, the last | filter.last |
| out_proj | out_proj |

The encoding and the window (pos_emb.z, pos_emb.t, modulation.deltas) are formulas here: they are
not copied but compared.
Source: Poli et al. 2023 (arXiv:2302.10866) and the code released with it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mechbench.errors import ConfigError
from mechbench.filters.released import ReleasedFilter
from mechbench.operators.hyena import Hyena

_PART = "filter_fn.implicit_filter."


def load_released(operator: Hyena, state: Mapping[str, Tensor]) -> None:
    """Copy the state dict of a released operator (heads 1, blocks 1) into `operator`.

    Args:
        operator: built with variant "released", filter "released" and the same sizes.
        state: as the released operator's `state_dict()` gives it.

    Raises:
        ConfigError: `operator` is of another kind, a weight is missing or of another shape, or
            encoding or window are not those that `operator` computes: a trained encoding, or
            another length or decay.
    """
    family = operator.filter
    if operator.variant != "released" or not isinstance(family, ReleasedFilter):
        raise ConfigError("released weights fit variant 'released' with filter 'released' only")
    try:
        found = _renamed(operator, family, state)
        fixed = {
            "filter_fn.pos_emb.z": family.encoding(family.max_seqlen).detach(),
            "filter_fn.modulation.deltas": -family.alpha,
        }
        for name, expected in fixed.items():
            given = state.get(name, expected).double().flatten()
            wanted = expected.double().flatten()
            if given.shape != wanted.shape or not torch.allclose(given, wanted, 1e-3, 1e-3):
                raise ConfigError(f"{name} is not what the operator computes: expected its formula")
        operator.load_state_dict(found)
    except KeyError as error:
        raise ConfigError(f"released weights lack {error}") from None
    except RuntimeError as error:
        raise ConfigError(f"released weights do not fit: {' '.join(str(error).split())}") from None


def _renamed(
    operator: Hyena, family: ReleasedFilter, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    out = {name: state[name] for name in ("out_proj.weight", "out_proj.bias")}

    def turned(name: str) -> Tensor:
        """Return the blocks of x^N .. x^1, v in our order."""
        return torch.cat(state[name].chunk(operator.order + 1)[::-1])

    out["in_proj.weight"], out["in_proj.bias"] = turned("in_proj.weight"), turned("in_proj.bias")
    out["short_weight"] = turned("short_filter.weight")[:, 0].flip(-1)
    out["short_bias"] = turned("short_filter.bias")
    out["skip"] = state["filter_fn.bias"].view(family.d_model, family.n_filters).T
    for n in range(len(family.inner)):
        for part in ("weight", "bias"):
            out[f"filter.inner.{n}.{part}"] = state[f"{_PART}{2 * n}.{part}"]
    out["filter.sine.freq"] = state[f"{_PART}1.freq"].flatten()
    out["filter.last.weight"] = state[f"{_PART}{2 * len(family.inner)}.weight"]
    return out
