"""Time a training step, its parts and the sampler; print one JSON line a setting.

    python scripts/time_training_step.py --operator hyena --seqlen 1024 --seqlen 131072
    python scripts/time_training_step.py --operator retnet --option backend=fla --graph

Median over repeated steps after warm-up, CUDA-synchronised; with --graph the step is captured, as
`mechbench run` does it on a GPU. "all" stands for every built-in operator. Also times
the FFT alone at candidate transform lengths (--fft) to justify `transform_length`.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, uninstalled

from mechbench.catalogue.options import parse_pairs
from mechbench.catalogue.registry import OPERATORS
from mechbench.data.streams import TrainStream
from mechbench.errors import MechbenchError
from mechbench.record.config import default_batch_size
from mechbench.tasks.base import make_task
from mechbench.training.loop import backward
from mechbench.training.memory import first_micro_batch, peak_memory_mib
from mechbench.training.model import Backbone
from mechbench.training.optimiser import make_optimizer
from mechbench.training.step import WARM_UP, Stepper


def median_s(work: Callable[[], object], device: str, repeats: int, at_once: int = 1) -> float:
    """Return the median time of `work`, `at_once` calls of it queued between synchronisations."""
    for _ in range(WARM_UP + 1):
        work()
    times = []
    for _ in range(repeats):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(at_once):
            work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / at_once)
    return statistics.median(times)


def time_fft(device: str) -> None:
    for n in (262144, 262147, 262148, 262440, 268800, 276480, 286720, 294912, 327680, 393216):
        x = torch.randn(4, 64, n, device=device)
        seconds = median_s(lambda x=x, n=n: torch.fft.irfft(torch.fft.rfft(x), n), device, 5)
        print(json.dumps({"transform_length": n, "ms": round(seconds * 1e3, 3)}))


@click.command()
@click.option("--operator", "operators", multiple=True, default=("hyena",))
@click.option("--option", "options", multiple=True, help="key=value, of every operator.")
@click.option("--task", default="recall")
@click.option("--seqlen", "seqlens", multiple=True, type=int, default=(1024,))
@click.option("--vocab-size", default=30)
@click.option("--d-model", default=64)
@click.option("--batch-size", default=0, help="Sequences a step; 0: as a run takes.")
@click.option("--repeats", default=5)
@click.option("--graph", is_flag=True, help="Replay the step as a CUDA graph.")
@click.option("--fft", is_flag=True)
@click.option("--profile", is_flag=True, help="Print the kernels of one step.")
def main(
    operators: tuple[str, ...],
    options: tuple[str, ...],
    task: str,
    seqlens: tuple[int, ...],
    vocab_size: int,
    d_model: int,
    batch_size: int,
    repeats: int,
    graph: bool,
    fft: bool,
    profile: bool,
) -> None:
    if fft:
        time_fft("cuda" if torch.cuda.is_available() else "cpu")
    given = parse_pairs(options)
    for operator in OPERATORS.built_in() if operators == ("all",) else operators:
        for seqlen in seqlens:
            sizes = (vocab_size, d_model, batch_size or default_batch_size(seqlen))
            try:
                time_step(operator, given, task, seqlen, *sizes, repeats, graph, profile)
            except MechbenchError as error:  # of several settings the others are timed all the same
                click.echo(f"{operator} at {seqlen}: {error}", err=True)
            except torch.OutOfMemoryError:
                click.echo(f"{operator} at {seqlen}: out of memory", err=True)
                torch.cuda.empty_cache()


def time_step(
    operator: str,
    options: dict[str, str],
    task: str,
    seqlen: int,
    vocab_size: int,
    d_model: int,
    batch_size: int,
    repeats: int,
    graph: bool,
    profile: bool,
) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "bfloat16" if device == "cuda" else "float32"
    made = make_task(task, vocab_size=vocab_size, seqlen=seqlen)
    length = made.input_seqlen
    micro = first_micro_batch(batch_size, length, d_model, 2, device)
    model = Backbone(
        operator,
        options,
        vocab_size=vocab_size,
        d_model=d_model,
        n_layers=2,
        max_seqlen=length,
        input_dim=getattr(made, "input_dim", 0),
    ).to(device)
    optimizer = make_optimizer(model, 1e-3, 0.1)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()

    stream, steps = TrainStream(made, batch_size, 0, device), itertools.count()
    batch = stream.batch(next(steps))
    samples = 100 if seqlen < 65536 else 4

    def sample() -> None:
        for _ in range(samples):
            stream.batch(next(steps))

    def gradients(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad(set_to_none=True)
        return backward(model, inputs, targets, micro, device, dtype)

    stepper = Stepper(
        model, optimizer, gradients, 1.0, graph, lambda text: click.echo(text, err=True)
    )

    def step() -> None:
        if not stepper.replay(batch.inputs, batch.dense_targets, 1.0):
            stepper.gradients(batch.inputs, batch.dense_targets)
            stepper.update(1.0)

    # Queued as in training, which looks at results every few dozen steps only.
    step_s = median_s(step, device, repeats, 10 if graph else 1)
    sample_s = median_s(sample, device, 3) / samples
    row = {
        "operator": operator,
        **({"options": options} if options else {}),
        "graph": graph,
        "seqlen": seqlen,
        "batch_size": batch_size,
        "micro_batch": micro,
        "step_ms": round(step_s * 1e3, 2),
        "sample_ms": round(sample_s * 1e3, 3),
        "sample_share": round(sample_s / step_s, 4),
        "tokens_per_s": round(batch_size * length / step_s),
        "peak_memory_mib": round(peak_memory_mib(device)),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
    }
    print(json.dumps(row), flush=True)
    if profile:
        with torch.profiler.profile() as profiler:
            step()
            if device == "cuda":
                torch.cuda.synchronize()
        key = "self_cuda_time_total" if device == "cuda" else "self_cpu_time_total"
        print(profiler.key_averages().table(sort_by=key, row_limit=18, max_name_column_width=60))


if __name__ == "__main__":
    main()
