"""`mechbench inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from mechbench.catalogue.options import parse_pairs
from mechbench.catalogue.registry import OPERATORS, load_plugins
from mechbench.cli.arguments import Setting


@click.command("inspect")
@click.option("--operator", help="Operator to look into, freshly initialised.")
@click.option("--run", "run_folder", metavar="RUN", help="Or a trained one: runs/<cell id>.")
@click.option("--layer", type=Setting("layer"), help="Block of the run.  [default: 0]")
@click.option(
    "--seqlen",
    type=Setting("seqlen"),
    help="Tokens of the input.  [default: 64; of a run its own]",
)
@click.option("--d-model", type=Setting("d_model"), help="Channels.  [default: 64]")
@click.option("--seed", type=Setting("seed"), help="Of the fresh operator.  [default: 0]")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE")
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="FILE.py",
    help="Load this file too; of a run, if its own is gone.",
)
@click.option("--out", default="report", show_default=True, help="Folder for the plots.")
def command(
    operator: str | None,
    run_folder: str | None,
    layer: int | None,
    seqlen: int | None,
    d_model: int | None,
    seed: int | None,
    options: tuple[str, ...],
    plugins: tuple[str, ...],
    out: str,
) -> None:
    """Draw H(u), the matrix from values to outputs; the filters; and the reach of gradients.

    Of a freshly initialised operator on random input, or of a trained one on its task: four
    channels (or heads), as mixing_matrix, filters (where there are any) and gradient_reach, .png
    and .svg.
    """
    given = parse_pairs(options)
    if operator is None and run_folder is None:
        raise click.UsageError("Missing option '--operator'.")
    own = {"--operator": operator, "--d-model": d_model, "--seed": seed, "--option": given or None}
    clash = [name for name, value in own.items() if value is not None]
    if run_folder is not None and clash:
        raise click.UsageError(f"{clash[0]} stands in the configuration of --run already.")
    if run_folder is None and layer is not None:
        raise click.UsageError("--layer is of a trained model: it needs --run.")
    load_plugins(plugins)
    if operator is not None:
        OPERATORS.entry(operator)
    from mechbench.checks.inspection import fresh, portraits, trained

    if run_folder is not None:
        specimen = trained(Path(run_folder), layer=layer or 0, seqlen=seqlen)
    else:
        specimen = fresh(
            str(operator), given, d_model=d_model or 64, seqlen=seqlen or 64, seed=seed or 0
        )
    for path in portraits(specimen, Path(out)):
        click.echo(path)
