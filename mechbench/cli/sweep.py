"""`mechbench sweep`."""

from __future__ import annotations

from pathlib import Path

import click

from mechbench.cli.arguments import Setting
from mechbench.console.tracking import TRACKERS, check_tracker
from mechbench.plan.suite_file import read_suite
from mechbench.plan.suite_names import find_suite


@click.command("sweep")
@click.argument("suite")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="runs",
    show_default=True,
    help="Folder of results, one a cell; shared with `mechbench run`.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan and its cost, and run nothing.")
@click.option(
    "--jobs",
    type=Setting("jobs"),
    help="Worker processes.  [default: as many as --jobs-per-device gives]",
)
@click.option(
    "--jobs-per-device",
    type=Setting("jobs_per_device"),
    default=1,
    show_default=True,
    help="Cells that share one GPU; what runs out of memory so is tried again alone.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="For suites that set none.",
)
@click.option("--retry-failed", is_flag=True, help="Try again what failed or ran out of memory.")
@click.option(
    "--checkpoint-every",
    "checkpoint_s",
    type=Setting("checkpoint_s"),
    default=30.0,
    show_default=True,
    help="Seconds between checkpoints.",
)
@click.option(
    "--log",
    type=click.Choice(TRACKERS),
    default="none",
    show_default=True,
    help="Metrics to a tracker too, below --out.",
)
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Worker processes here, or a Ray cluster (extra mechbench[ray]).",
)
@click.option(
    "--ray-address",
    help="The cluster, of devices like the one here.  [default: one started here]",
)
@click.option("--quiet", is_flag=True, help="Nothing but warnings and errors.")
def command(
    suite: str,
    out: Path,
    dry_run: bool,
    jobs: int | None,
    jobs_per_device: int,
    device: str,
    dtype: str,
    retry_failed: bool,
    checkpoint_s: float,
    log: str,
    executor: str,
    ray_address: str | None,
    quiet: bool,
) -> None:
    """Run every cell of SUITE, the longest first.

    SUITE is a name that `mechbench list suites` shows, or the path of a .toml file.

    The same command continues; a changed suite runs only what is new. A cell that fails is
    recorded with its reason and does not stop the others. Exit code 1: a cell failed.
    """
    if ray_address is not None and executor != "ray":
        raise click.UsageError("--ray-address goes with --executor ray")
    read = read_suite(find_suite(suite))
    check_tracker(log)
    from mechbench.sweep.execute import RayCluster, look, run_sweep, worker_devices

    devices = worker_devices(device, jobs, jobs_per_device)
    outlook = look(read, out, device=device, dtype=dtype, retry_failed=retry_failed)
    if not quiet or dry_run:
        click.echo(outlook.text(suite, len(devices)))
    if dry_run:
        return
    plan, signal_number = run_sweep(
        outlook,
        read,
        out,
        devices,
        checkpoint_s=checkpoint_s,
        log=log,
        quiet=quiet,
        ray=RayCluster(ray_address, jobs_per_device) if executor == "ray" else None,
    )
    if signal_number is not None:
        click.echo(
            f"mechbench: interrupted with {len(plan.todo) + len(plan.waiting)} cells to go; "
            "the same command continues",
            err=True,
        )
        raise SystemExit(128 + signal_number)
    if not quiet:
        click.echo(
            f"{len(plan.done)} of {plan.total} cells done, {len(plan.failed)} failed; "
            f"results in {out}"
        )
    if plan.failed:
        raise SystemExit(1)
