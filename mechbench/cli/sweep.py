"""`mechbench sweep`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from mechbench.cli.arguments import Setting
from mechbench.cli.interrupted import end_if_interrupted
from mechbench.console.tracking import TRACKERS, check_tracker
from mechbench.plan.suite_file import read_suite
from mechbench.plan.suite_names import find_suite
from mechbench.sweep.process import template


@click.command("sweep")
@click.argument("suite")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="runs",
    show_default=True,
    help="Folder for results; each cell gets a folder in it, as in `mechbench run`.",
)
@click.option(
    "--dry-run", is_flag=True, help="Show the plan and its estimated cost, and run nothing."
)
@click.option(
    "--jobs",
    type=Setting("jobs"),
    help="Number of worker processes.  [default: --jobs-per-device times the devices]",
)
@click.option(
    "--jobs-per-device",
    type=Setting("jobs_per_device"),
    help="Number of cells that share a GPU; a cell that runs out of memory is tried again alone.  "
    "[default: up to 4 small ones, else 1]",
)
@click.option(
    "--lanes",
    type=Setting("lanes"),
    default=1,
    show_default=True,
    help="Number of cells at once in each worker process, on a GPU in streams; with more than one, "
    "--jobs-per-device is 1 by default.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="Precision, if the suite does not set one.",
)
@click.option(
    "--retry-failed", is_flag=True, help="Run again the cells that failed or ran out of memory."
)
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
    help="Tracker to log the metrics to as well; its files go below --out.",
)
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="local: processes on this machine; ray: a Ray cluster (needs mechbench[ray]).",
)
@click.option(
    "--ray-address",
    help="Address of a Ray cluster whose machines have the same kind of device as this one.  "
    "[default: a cluster started on this machine]",
)
@click.option("--quiet", is_flag=True, help="Print nothing but warnings and errors.")
def command(
    suite: str,
    out: Path,
    dry_run: bool,
    jobs: int | None,
    jobs_per_device: int | None,
    lanes: int,
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

    The same command continues an interrupted sweep, and a changed suite runs only what is new. A
    cell that fails is recorded with its reason and does not stop the others. The exit code is 1 if
    a cell failed.
    """
    if ray_address is not None and executor != "ray":
        raise click.UsageError("--ray-address goes with --executor ray")
    if lanes > 1 and executor == "ray":
        raise click.UsageError("--lanes goes with --executor local")
    read = read_suite(find_suite(suite))
    check_tracker(log)
    local = executor == "local" and not dry_run
    with template() if local else nullcontext() as ready:  # before this process imports torch
        from mechbench.sweep.execute import RayCluster, look, run_sweep, worker_devices
        from mechbench.sweep.sharing import cells_a_gpu

        outlook = look(read, out, device=device, dtype=dtype, retry_failed=retry_failed)
        gpus = len(worker_devices(device, None, 1))
        shared = jobs_per_device or (cells_a_gpu(outlook.left, gpus) if lanes == 1 else 1)
        devices = worker_devices(device, jobs, shared)
        if not quiet or dry_run:
            click.echo(outlook.text(suite, lanes * len(devices)))
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
            ray=RayCluster(ray_address, shared) if executor == "ray" else None,
            template=ready,
            lanes=lanes,
        )
    end_if_interrupted(plan, signal_number)
    if not quiet:
        click.echo(
            f"{len(plan.done)} of {plan.total} cells done, {len(plan.failed)} failed; "
            f"results in {out}"
        )
    if plan.failed:
        raise SystemExit(1)
