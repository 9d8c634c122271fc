"""Data parallelism: processes that share the sequences of each step and sum their gradients.

Every process draws the whole batch, which is a function of the seed and the step, and computes its
own rows of it; the loss is divided by the whole batch's count before the sum. So the result is that
of one process within rounding, whatever their number. The first process leads: it alone stores.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mechbench.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


# Names the file where the processes that `launch` starts meet; torchrun has its own way.
MEETING = "MECHBENCH_MEETING"


class Group:
    """The processes of one run; alone by default.

    Args:
        rank: number of this process; 0 leads.
        size: number of processes.
        control: process group on the CPU, for what is not on the training device.
    """

    def __init__(self, rank: int = 0, size: int = 1, control: Any = None) -> None:
        self.rank, self.size, self._control = rank, size, control

    def share(self, rows: Tensor) -> Tensor:
        """Return this process's part of a batch (B, ...)."""
        return rows if self.size == 1 else rows[self.rank :: self.size]

    def add_(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        if self.size > 1:
            import torch.distributed as dist

            for tensor in tensors:
                dist.all_reduce(tensor)

    def total(self, numbers: Sequence[int]) -> list[int]:
        """Return the sums of whole numbers over the processes."""
        if self.size == 1:
            return list(numbers)
        import torch
        import torch.distributed as dist

        sums = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(sums, group=self._control)
        return sums.tolist()

    def any(self, flag: bool) -> bool:
        """Return whether any process gives True: the answer is the same for all."""
        return self.total([int(bool(flag))])[0] > 0


ALONE = Group()


def launched() -> bool:
    """Return whether this process is one of several, as torchrun starts them."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def follows() -> bool:
    """Return whether another process of this run leads, stores and prints."""
    return launched() and int(os.environ["RANK"]) > 0


def join(processes: int, device: str) -> tuple[Group, str]:
    """Join the other processes; return the group and this process's device.

    Raises:
        ConfigError: this process was not started as one of so many, or there are too few GPUs.
    """
    if processes == 1:
        return ALONE, device
    size = int(os.environ.get("WORLD_SIZE", 1)) if launched() else 1
    if size != processes:
        raise ConfigError(
            f"data_parallel is {processes}, but {size} were started: expected `mechbench run "
            f"--data-parallel {processes}` or torchrun with --nproc-per-node {processes}"
        )
    import torch
    import torch.distributed as dist

    rank = int(os.environ["RANK"])
    on_cuda = device.startswith("cuda")
    if on_cuda:
        local = int(os.environ.get("LOCAL_RANK", rank))
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"data_parallel is {processes}: there are {torch.cuda.device_count()} CUDA devices"
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        dist.init_process_group(
            "nccl" if on_cuda else "gloo",
            init_method=os.environ.get(MEETING, "env://"),
            rank=rank,
            world_size=size,
        )
        # Before Python takes its modules down: a connection that is broken then aborts a process.
        atexit.register(dist.destroy_process_group)
    return Group(rank, size, dist.new_group(backend="gloo")), device
