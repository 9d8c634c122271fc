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
    "--run",
    "runs",
    multiple=True,
    metavar="RUN",
    help="Run to inspect instead: the folder runs/<cell id> (repeatable with --energy).",
)
@click.option("--energy", is_flag=True, help="Draw how far the filters of the runs see, instead.")
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
    runs: tuple[str, ...],
    energy: bool,
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

    With --energy it is the filters of trained operators at their whole length: quantiles over all
    channels of their energy against lag, as filter_energy. Runs that differ in their options have a
    panel each; seeds are taken together.
    """
    given = parse_pairs(options)
    if operator is None and not runs:
        raise click.UsageError("Missing option '--operator'.")
    own = {"--operator": operator, "--d-model": d_model, "--seed": seed, "--option": given or None}
    clash = [name for name, value in own.items() if value is not None]
    if runs and clash:
        raise click.UsageError(f"{clash[0]} is set by the configuration of --run.")
    if not runs and layer is not None:
        raise click.UsageError("--layer chooses a block of a trained model: it needs --run.")
    if energy:
        whole = {"--layer": layer, "--seqlen": seqlen}
        clash = [name for name, value in whole.items() if value is not None]
        if clash:
            raise click.UsageError(f"{clash[0]} has no effect on --energy, which draws all of it.")
        if not runs:
            raise click.UsageError("--energy draws filters of trained models: it needs --run.")
    elif len(runs) > 1:
        raise click.UsageError("Several runs beside each other: only with --energy.")
    load_plugins(plugins)
    if energy:
        from mechbench.checks.filter_energy import draw_energies

        for path in draw_energies([Path(run) for run in runs], Path(out)):
            click.echo(path)
        return
    if operator is not None:
        OPERATORS.entry(operator)
    from mechbench.checks.inspection import fresh, portraits, trained

    if runs:
        specimen = trained(Path(runs[0]), layer=layer or 0, seqlen=seqlen)
    else:
        specimen = fresh(
            str(operator), given, d_model=d_model or 64, seqlen=seqlen or 64, seed=seed or 0
        )
    for path in portraits(specimen, Path(out)):
        click.echo(path)
