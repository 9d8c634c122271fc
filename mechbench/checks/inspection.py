"""What `mechbench inspect` draws: the matrix H(u), the filters, and how far gradients reach."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mechbench.catalogue.bounds import MATRIX
from mechbench.catalogue.plugins import load_plugin, loaded_plugins
from mechbench.catalogue.registry import TASKS, code_of
from mechbench.catalogue.settings import check_product, setting
from mechbench.checks.properties import reach
from mechbench.data.streams import draw
from mechbench.errors import ConfigError, PluginError
from mechbench.operators.base import components_used, make_operator, matrix_of, operator_options
from mechbench.plan.resolve import task_of
from mechbench.record.config import Config
from mechbench.record.files import make_folder
from mechbench.record.results import read_config
from mechbench.record.seeds import derive
from mechbench.report.filter_plot import plot_filters
from mechbench.report.matrix import plot_matrices
from mechbench.report.reach import plot_reach
from mechbench.training.checkpoint import load_weights
from mechbench.training.gate import naming
from mechbench.training.lengths import tokens_built_for
from mechbench.training.model import Backbone, build_model

_EXAMPLES = 8  # that the reach is a mean over
_CHANNELS = 4  # that are drawn
_LONGEST = 1024  # tokens of a trained model's input that are looked at


@dataclass(frozen=True)
class Specimen:
    """An operator and inputs to look at it with."""

    name: str
    title: str
    module: nn.Module
    u: Tensor  # (B, L, D)


def fresh(
    operator: str, options: dict[str, Any], *, d_model: int, seqlen: int, seed: int
) -> Specimen:
    """Return a freshly initialised operator with standard normal inputs.

    Raises:
        ConfigError: unknown operator or option.
        OperatorError: it cannot be built.
    """
    seed, seqlen = setting("seed", seed), _check_seqlen(seqlen)
    d_model = setting("d_model", d_model)
    check_product(MATRIX, seqlen=seqlen, keys=seqlen, d_model=d_model)
    torch.manual_seed(derive(seed, "inspect"))
    resolved = operator_options(operator, options)
    module = make_operator(operator, d_model=d_model, max_seqlen=seqlen, **resolved).eval()
    return Specimen(operator, operator, module, torch.randn(_EXAMPLES, seqlen, d_model))


def _check_seqlen(seqlen: int) -> int:
    found: int = setting("seqlen", seqlen)
    if not 2 <= found <= _LONGEST:
        raise ConfigError(f"seqlen is {found}: expected 2 to {_LONGEST}")
    return found


def trained(folder: Path, *, layer: int = 0, seqlen: int | None = None) -> Specimen:
    """Return the operator of a stored run, with what reaches it on the task's validation examples.

    Args:
        folder: `runs/<cell id>`, with config.json and checkpoint.pt.
        layer: the block to look into, from 0.
        seqlen: tokens of the examples; by default all of them, up to 1024.

    Raises:
        ConfigError: no such layer, an input shorter than seqlen, or a plugin that changed since.
        PluginError: a plugin of the run cannot be loaded.
        ResultError: a file is missing or corrupt.
    """
    if seqlen is not None:
        _check_seqlen(seqlen)
    config, model = load_trained(folder, layer)
    task = task_of(config)
    tokens = draw(task, _EXAMPLES, config.seed, "validation", 0, "cpu").inputs
    if seqlen is not None and seqlen > task.input_seqlen:
        raise ConfigError(f"seqlen is {seqlen}: the run's inputs have {task.input_seqlen} tokens")
    module = model.blocks[layer].operator
    assert isinstance(module, nn.Module)
    with naming(config.operator):
        u = _input_of(module, model, tokens[:, : seqlen or _LONGEST])
    title = f"{config.operator}, layer {layer}, trained on {config.task} at {config.seqlen}"
    return Specimen(config.operator, title, module, u)


def load_trained(folder: Path, layer: int = 0) -> tuple[Config, Backbone]:
    """Return a stored run's configuration, and its model with the weights that were evaluated.

    Args:
        folder: as in `trained`.
        layer: a block that the model must have.

    Raises:
        ConfigError: no such layer, or a plugin that changed since.
        PluginError: a plugin of the run cannot be loaded.
        ResultError: a file is missing or corrupt.
    """
    config = read_config(folder / "config.json")
    _load_code(config, folder)
    if not 0 <= layer < config.n_layers:
        raise ConfigError(f"layer is {layer}: the model has layers 0 to {config.n_layers - 1}")
    model = build_model(config, tokens_built_for(config)).eval()
    load_weights(folder / "checkpoint.pt", config, model)
    return config, model


def portraits(specimen: Specimen, folder: Path) -> list[Path]:
    """Draw the matrix, the filters where there are any, and the reach; return the files.

    Raises:
        ConfigError: the operator has no matrix form, or the folder cannot be written.
        OperatorError: the operator raised.
        ResultError: a file cannot be written.
    """
    module, u = specimen.module, specimen.u
    with naming(specimen.name, module):
        H = matrix_of(module, u[:1])[0]
        norms = reach(module, u)
        taps = _filters(module, u.shape[1])
    make_folder(folder)
    title = specimen.title
    paths = plot_matrices(H[:_CHANNELS].numpy(), f"{title}: H(u)", folder / "mixing_matrix")
    if taps is not None:
        paths += plot_filters(taps.numpy(), f"{title}: filters", folder / "filters")
    return paths + plot_reach(norms.numpy(), f"{title}: gradient reach", folder / "gradient_reach")


def all_taps(module: nn.Module, seqlen: int) -> Tensor | None:
    """Return every channel's taps, (C, L), of an operator with a `filter` that gives (N, D, L)."""
    make = getattr(module, "filter", None)
    if not callable(make):
        return None
    with torch.no_grad():
        taps: Tensor = make(seqlen).flatten(0, -2)  # (N D, L)
    return taps


def _filters(module: nn.Module, seqlen: int) -> Tensor | None:
    """Return the taps of a few channels, (C, L)."""
    taps = all_taps(module, seqlen)
    if taps is None:
        return None
    # Spread over the channels, whose windows may differ in order.
    chosen = torch.linspace(0, len(taps) - 1, min(_CHANNELS, len(taps))).long()
    return taps[chosen]


def _input_of(module: nn.Module, model: nn.Module, tokens: Tensor) -> Tensor:
    """Return what `module` gets when `model` reads the tokens, (B, L, D)."""
    caught: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    with torch.no_grad():
        model(tokens)
    handle.remove()
    return caught[0].float()


def _load_code(config: Config, folder: Path) -> None:
    """Load the plugins of a run, unless they were given, and see that all code is as it was.

    Raises:
        ConfigError: some of it has changed.
        PluginError: a plugin is gone, or cannot be loaded.
    """
    for path, digest in config.plugins.items():
        if digest in loaded_plugins():
            continue
        if not Path(path).expanduser().exists():
            given = ", no plugin given is the same" if loaded_plugins() else ""
            raise PluginError(
                f"plugin {path} of {folder} is gone{given}: name the file as it was with "
                "--plugin FILE.py"
            )
        load_plugin(path)
    used = components_used(config.operator, config.operator_options)
    plugins, here = code_of([*used, TASKS.entry(config.task)])
    for origin, digest in plugins.items():
        if digest not in config.plugins.values():
            raise ConfigError(f"{origin} has changed since {folder} was trained")
    for name in sorted({*here, *config.sources} if config.sources else ()):
        if here.get(name) != config.sources.get(name):
            raise ConfigError(f"{name} has changed since {folder} was trained")
