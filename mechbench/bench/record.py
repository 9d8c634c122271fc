"""The record of a bench: its setting, the machine's rates, and the readings. No torch."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from mechbench.catalogue.settings import setting

OK, OUT_OF_MEMORY, NOT_RUN, ERROR = "ok", "out of memory", "not run", "error"
REFERENCE = "attention"  # the line that the others are compared with


@dataclass(frozen=True)
class Line:
    """One line of the plot: an operator, or one backend of `fft_conv`."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)  # all of the operator's, typed
    conv_backend: str | None = None  # of `fft_conv`; None for an operator


@dataclass(frozen=True)
class Setting:
    """What all readings of a bench share."""

    d_model: int
    tokens: int  # in a batch, as near as whole sequences come
    device: str
    dtype: str  # "float32" or "bfloat16"
    repeats: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("d_model", "tokens", "repeats", "seed"):
            object.__setattr__(self, name, setting(name, getattr(self, name)))

    def batch(self, seqlen: int) -> int:
        """Return the sequences in a batch, at least one."""
        return max(1, self.tokens // seqlen)


@dataclass(frozen=True)
class Rates:
    """What the machine reaches on the simplest work, measured in the same process."""

    copy_gb_s: float  # bytes read and written, 1e9 a second
    matmul_tflop_s: float  # of a large square product in the bench's dtype


@dataclass(frozen=True)
class Measured:
    """The figures of a reading."""

    forward_ms: tuple[float, ...]  # one a repeat
    both_ms: tuple[float, ...]  # forward and backward
    peak_mib: float | None  # over one forward and backward; None on a CPU

    @property
    def forward(self) -> float:
        """Return the median of the forward passes, ms."""
        return statistics.median(self.forward_ms)

    @property
    def both(self) -> float:
        """Return the median of forward and backward, ms."""
        return statistics.median(self.both_ms)


@dataclass(frozen=True)
class Work:
    """The least that a pass must do: bytes to move, and operations if they can be counted."""

    forward_bytes: int
    both_bytes: int
    forward_flops: float | None = None
    both_flops: float | None = None


@dataclass(frozen=True)
class Reading:
    """A line at a length."""

    line: str
    seqlen: int
    batch: int
    status: str
    reason: str = ""
    backend: str = ""
    measured: Measured | None = None
    work: Work | None = None
    candidates: dict[str, Measured | str] = field(default_factory=dict)  # or why they did not run

    @property
    def outcome(self) -> str:
        """Return the status as a table shows it where there is no figure."""
        return f"{self.status}: {self.reason}" if self.status == NOT_RUN else self.status


@dataclass
class Record:
    """A bench, finished or in progress."""

    lines: list[Line]
    seqlens: list[int]
    setting: Setting
    rates: Rates
    provenance: dict[str, str | None]
    readings: list[Reading] = field(default_factory=list)

    def of(self, line: str) -> dict[int, Reading]:
        """Return the readings of a line by length, ascending."""
        return {
            r.seqlen: r for r in sorted(self.readings, key=lambda r: r.seqlen) if r.line == line
        }

    def medians(self, line: str, *, backward: bool = True) -> dict[int, float]:
        """Return the median ms of a batch by length, where it was measured."""
        return {
            n: reading.measured.both if backward else reading.measured.forward
            for n, reading in self.of(line).items()
            if reading.measured is not None
        }


def quartiles(samples: tuple[float, ...]) -> tuple[float, float]:
    """Return the first and the third quartile; of a single sample the sample itself."""
    if len(samples) == 1:
        return samples[0], samples[0]
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, high
