"""`mechbench inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from mechbench.catalogue.options import parse_pairs
from mechbench.catalogue.plugins import load_plugins
from mechbench.catalogue.registry import OPERATORS
from mechbench.cli.arguments import OPERATOR_OPTION, Setting


@click.command("inspect")
@click.option("--operator", help="Operator to inspect, freshly initialised.")
@click.option(
    "--run", "run_folder", metavar="RUN", help="Run to inspect instead: the folder runs/<cell id>."
)
@click.option("--layer", type=Setting("layer"), help="Block of the trained model.  [default: 0]")
@click.option(
    "--seqlen",
    type=Setting("seqlen"),
    help="Length of the input in tokens.  [default: 64, or the run's]",
)
@click.option("--d-model", type=Setting("d_model"), help="Model width.  [default: 64]")
@click.option(
    "--seed", type=Setting("seed"), help="Seed of the fresh operator and its input.  [default: 0]"
)
@OPERATOR_OPTION
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="FILE.py",
    help="Python file to load first (repeatable); for a run, in place of one that is gone.",
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
    """Draw an operator's matrix H(u), its filters and the reach of its gradients.

    H(u) maps values to outputs. The operator is freshly initialised and gets random input, or it is
    a trained one and gets an example of its task. Four channels (or heads) are drawn, as
    mixing_matrix, filters (if it has any) and gradient_reach, each as .png and .svg.
    """
    given = parse_pairs(options)
    if operator is None and run_folder is None:
        raise click.UsageError("Missing option '--operator'.")
    own = {"--operator": operator, "--d-model": d_model, "--seed": seed, "--option": given or None}
    clash = [name for name, value in own.items() if value is not None]
    if run_folder is not None and clash:
        raise click.UsageError(f"{clash[0]} is set by the configuration of --run.")
    if run_folder is None and layer is not None:
        raise click.UsageError("--layer chooses a block of a trained model: it needs --run.")
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
