"""`mechbench inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from mechbench.options import parse_pairs
from mechbench.registry import OPERATORS, load_plugins


@click.command("inspect")
@click.option("--operator", required=True, help="Operator to look into.")
@click.option("--seqlen", type=click.IntRange(2, 1024), default=64, show_default=True)
@click.option("--d-model", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE")
@click.option("--plugin", "plugins", multiple=True, metavar="FILE.py", help="Load this file too.")
@click.option("--out", default="report", show_default=True, help="Folder for the plot.")
def command(
    operator: str,
    seqlen: int,
    d_model: int,
    seed: int,
    options: tuple[str, ...],
    plugins: tuple[str, ...],
    out: str,
) -> None:
    """Draw H(u), the matrix from values to outputs, of a freshly initialised operator.

    Four channels (or heads) on one random input, as mixing_matrix.png and .svg.
    """
    given = parse_pairs(options)
    load_plugins(plugins)
    OPERATORS.entry(operator)
    import torch

    from mechbench.atomic import make_folder
    from mechbench.checks import naming
    from mechbench.operators.base import make_operator, materialize
    from mechbench.report.matrix import plot_matrices
    from mechbench.seeds import derive

    torch.manual_seed(derive(seed, "inspect"))
    module = make_operator(operator, d_model=d_model, max_seqlen=seqlen, **given)
    u = torch.randn(1, seqlen, d_model)
    with naming(operator):
        H = materialize(module, u)[0]
    folder = Path(out)
    make_folder(folder)
    for path in plot_matrices(H[:4].numpy(), f"{operator}: H(u)", folder / "mixing_matrix"):
        click.echo(path)
