"""Time every registered task's sampler on the CPU: tokens a second, and a second of one core.

    python scripts/time_samplers.py

Median over repeats after one for warming up, each of about 2^20 tokens, at the task's own length
and vocabulary; recall also at 131,072. Points of tasks with continuous inputs count as tokens.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
import torch

from mechbench.catalogue.registry import TASKS
from mechbench.tasks.base import Task, make_task


def tokens_per_s(task: Task, repeats: int, tokens: int) -> tuple[float, float]:
    """Return tokens by the clock and by the time that all threads together worked.

    The second figure holds on a busy machine too.
    """
    batch_size = max(1, tokens // task.input_seqlen)
    generator = torch.Generator().manual_seed(0)
    task.sample(batch_size, generator)
    clock, work = [], []
    for _ in range(repeats):
        start, started = time.perf_counter(), time.process_time()
        task.sample(batch_size, generator)
        clock.append(time.perf_counter() - start)
        work.append(time.process_time() - started)
    drawn = batch_size * task.input_seqlen
    return drawn / statistics.median(clock), drawn / statistics.median(work)


@click.command()
@click.option("--repeats", default=7)
@click.option("--tokens", default=1 << 20, help="Tokens a repeat.")
@click.option("--threads", default=2, help="CPU threads of torch.")
def main(repeats: int, tokens: int, threads: int) -> None:
    torch.set_num_threads(threads)
    settings = [(name, {}) for name in TASKS.names()]
    settings.append(("recall", {"vocab_size": 30, "seqlen": 131072}))
    for name, given in settings:
        task = make_task(name, **given)
        rate, core_rate = tokens_per_s(task, repeats, tokens)
        print(
            f"{name:18s} V {task.vocab_size:5d}  L {task.seqlen:7d}  {rate / 1e6:7.1f} M tokens/s"
            f"  {core_rate / 1e6:7.1f} M a core second"
        )


if __name__ == "__main__":
    main()
