"""How far the learned filters of stored runs see: their energy against lag, over all channels.

The mixing matrix and the taps that `mechbench.checks.inspection` draws are of four channels and of
1,024 tokens at most. Here it is the whole length and every channel, of runs beside each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from mechbench.checks.inspection import all_taps, load_trained
from mechbench.errors import ConfigError
from mechbench.plan.resolve import task_of
from mechbench.record.config import Config
from mechbench.record.files import make_folder
from mechbench.report.energy_plot import energy_by_lag, plot_energies
from mechbench.report.labels import labels
from mechbench.report.rows import identity
from mechbench.training.gate import naming

if TYPE_CHECKING:
    import numpy as np

_HIDDEN = ("lr",)  # chosen for each operator, and so no part of what it is


def draw_energies(folders: Sequence[Path], out: Path) -> list[Path]:
    """Draw the filters' energy against lag, a panel for each operator with its options.

    The channels of runs that differ in their seed and learning rate only are taken together.

    Args:
        folders: `runs/<cell id>`, with config.json and checkpoint.pt; of one task at one length.
        out: folder for `filter_energy.png` and `.svg`.

    Raises:
        ConfigError: an operator without filters, runs of several tasks or lengths, or a plugin that
            changed since.
        PluginError: a plugin of a run cannot be loaded.
        ResultError: a file is missing, corrupt, or cannot be written.
    """
    configs: list[Config] = []
    layers: list[list[np.ndarray[Any, Any]]] = []
    for folder in folders:
        config, model = load_trained(folder)
        if configs and _point(config) != _point(configs[0]):
            raise ConfigError(
                f"{folder} is of {_title(config)}, {folders[0]} of {_title(configs[0])}: expected "
                "runs of one task at one length"
            )
        configs.append(config)
        layers.append(_energies(config, model))
    keys = [identity(config, without=_HIDDEN) for config in configs]
    pooled: dict[str, list[list[np.ndarray[Any, Any]]]] = {}
    for label, own in zip(labels(configs, keys, _HIDDEN), layers, strict=True):
        pooled.setdefault(label, []).append(own)
    panels = {label: _together(pooled[label]) for label in sorted(pooled)}
    make_folder(out)
    task = task_of(configs[0])
    return plot_energies(
        panels,
        task.input_seqlen,
        f"Learned filters, {_title(configs[0])}",
        out / "filter_energy",
        asked_from=int(getattr(task, "min_distance", 0)),
    )


def _point(config: Config) -> tuple[Any, ...]:
    return config.task, config.task_options, config.seqlen


def _title(config: Config) -> str:
    told = "".join(f", {key}={value}" for key, value in sorted(config.task_options.items()))
    return f"{config.task}{told} at {config.seqlen}"


def _energies(config: Config, model: nn.Module) -> list[np.ndarray[Any, Any]]:
    """Return, for each layer, the energies (C, bins) of its operator's channels."""
    seqlen, found = task_of(config).input_seqlen, []
    blocks: Any = model.blocks
    for block in blocks:
        with naming(config.operator):
            taps = all_taps(block.operator, seqlen)
        if taps is None:
            raise ConfigError(f"operator {config.operator!r} has no filters to draw")
        found.append(energy_by_lag(taps.float().numpy()))
    return found


def _together(runs: Sequence[list[np.ndarray[Any, Any]]]) -> list[np.ndarray[Any, Any]]:
    """Return the channels of several runs as those of one, layer by layer."""
    import numpy as np

    return [np.concatenate(layer) for layer in zip(*runs, strict=True)]
