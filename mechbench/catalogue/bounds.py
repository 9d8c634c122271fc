"""The bounds of every setting, each with its reason. Imports nothing.

Bounds exist so that a typing mistake (2^31 layers, 10^25 examples) is reported at once, in one
line, rather than after an hour or by a traceback; they lie far beyond what anybody runs. Where two
sizes that are fine alone have a product that is not, the product has a bound of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """A range of numbers.

    Attributes:
        kind: int or float.
        least: smallest allowed value; with `above`, values must exceed it.
        most: largest allowed value.
        why: reason for `most`, as messages give it.
        above: whether `least` itself is excluded.
    """

    kind: type
    least: float
    most: float
    why: str
    above: bool = False

    @property
    def too_small(self) -> str:
        """Say what a value below the range should have been."""
        if self.above:
            return "expected a positive number" if self.least == 0 else f"expected above {self}"
        return "expected 0 or more" if self.least == 0 else f"expected at least {self.least}"

    @property
    def too_large(self) -> str:
        """Say what a value above the range should have been."""
        most = self.most if self.kind is int else f"{self.most:g}"
        return f"expected at most {most} ({self.why})"


INT64 = 2**63 - 1

SETTINGS: dict[str, Bound] = {
    # of a configuration
    "seqlen": Bound(int, 1, 2**24, "an example of 16 million tokens is the longest"),
    "vocab_size": Bound(int, 1, 2**20, "tokens are embedded one by one"),
    "d_model": Bound(int, 1, 2**13, "a layer has at least d_model^2 weights"),
    "n_layers": Bound(int, 1, 128, "layers are built and counted one by one"),
    "short_conv": Bound(int, 0, 2**10, "it is a short convolution"),
    "batch_size": Bound(int, 1, 2**20, "a step's sequences are drawn at once"),
    "budget_tokens": Bound(int, 1, 10**15, "years on the fastest GPU"),
    "seed": Bound(int, 0, INT64, "seeds are 63 bits"),
    "n_train": Bound(int, 0, 2**28, "a training set is held on the device"),
    "n_validation": Bound(int, 1, 2**24, "evaluation sets are held in memory"),
    "n_test": Bound(int, 1, 2**24, "evaluation sets are held in memory"),
    "validate_every": Bound(int, 1, 10**9, "no run has more steps"),
    "warmup_steps": Bound(int, 0, 10**9, "no run has more steps"),
    "lr": Bound(float, 0, 1e30, "float32 holds no such steps", above=True),
    "weight_decay": Bound(float, 0, 1e3, "it would set every weight to zero"),
    "grad_clip": Bound(float, 0, 1e9, "no gradient is larger", above=True),
    "task_version": Bound(int, 0, 2**31, "versions count up from 1"),
    "max_seqlen": Bound(int, 0, 2**26, "an example of 16 million tokens is the longest"),
    "protocol": Bound(int, 0, 2**31, "protocols count up from 1"),
    # of a suite
    "budget_sequences": Bound(int, 1, 10**12, "years on the fastest GPU"),
    "budget_epochs": Bound(int, 1, 10**9, "years on the fastest GPU"),
    # of a command
    "checkpoint_s": Bound(float, 0, 1e9, "that is 30 years"),
    "data_parallel": Bound(int, 1, 2**10, "each process takes sequences of every step"),
    "jobs": Bound(int, 1, 2**10, "each is a process with torch"),
    "jobs_per_device": Bound(int, 1, 64, "each is a process with torch"),
    "lanes": Bound(int, 1, 16, "cells in one process take turns"),
    "tokens": Bound(int, 1, 2**28, "a batch of 268 million tokens is the largest"),
    "repeats": Bound(int, 1, 10**5, "the median is known long before"),
    "examples": Bound(int, 1, 2**20, "they are held in memory"),
    "layer": Bound(int, 0, 127, "a model has at most 128 layers"),
    "last": Bound(int, 1, 10**6, "no terminal shows more"),
    "every_s": Bound(float, 0.1, 86_400, "that is a day"),
}

# Bounds of the options of built-in operators and filters; plugins check their own.
OPTIONS: dict[str, Bound] = {
    "n_heads": Bound(int, 0, 2**13, "no more than channels"),
    "expand": Bound(int, 1, 64, "inner channels are expand times d_model"),
    "expand_v": Bound(int, 1, 64, "values are expand_v times d_model wide"),
    "n_householder": Bound(int, 1, 64, "a token takes as many steps"),
    "gate_rank": Bound(int, 1, 2**13, "no more than channels"),
    "gate_temperature": Bound(float, 0, 1e6, "nothing decays in any input", above=True),
    "chunk": Bound(int, 1, 2**16, "a chunk is computed as one matrix"),
    "short_filter": Bound(int, 1, 2**10, "it is the short convolution"),
    "window": Bound(int, 1, 2**24, "no input is longer"),
    "d_state": Bound(int, 1, 2**14, "every channel has such a state"),
    "d_feature": Bound(int, 1, 128, "a state has half its square of rows"),
    "d_ssm": Bound(int, 0, 2**13, "a layer has at least d_model^2 weights"),
    "d_gate": Bound(int, 0, 2**13, "a layer has at least d_model^2 weights"),
    "d_rnn": Bound(int, 0, 2**13, "a layer has at least d_model^2 weights"),
    "n_groups": Bound(int, 0, 2**13, "no more than channels"),
    "order": Bound(int, 1, 64, "each is a convolution"),
    "emb_dim": Bound(int, 3, 2**12 + 1, "each band doubles the work"),
    "filter_width": Bound(int, 1, 2**13, "a layer has filter_width^2 weights"),
    "filter_layers": Bound(int, 0, 2**8, "layers are built one by one"),
    "n_taps": Bound(int, 1, 2**24, "no input is longer"),
    "n_modes": Bound(int, 1, 2**24, "no input has more"),
    "n_poles": Bound(int, 1, 2**16, "every channel has as many"),
    "rotary_base": Bound(float, 0, 1e12, "no input is longer"),
    "sine_freq": Bound(float, -1e6, 1e6, "sines of float32 are noise beyond"),
    "fast_decay": Bound(float, 0, 1e9, "that is no decay", above=True),
    "slow_decay": Bound(float, 0, 1e9, "that is no decay", above=True),
    "window_shift": Bound(float, -1e6, 1e6, "it is added to a window of height 1"),
    "filter_init_std": Bound(float, 0, 1e6, "taps would overflow"),
    "squash": Bound(float, 0, 1e6, "no tap is larger"),
    "smooth": Bound(int, 0, 2**24, "no input is longer"),
    "filter_lr": Bound(float, 0, 1e3, "nothing learns at such a rate", above=True),
    "eps": Bound(float, 0, 1, "it is added to sums of features"),
    "min_rate": Bound(float, 0, 16, "rates are drawn up to 16"),
    "depth": Bound(int, 0, 128, "a model has at most 128 layers"),
    "dt_min": Bound(float, 0, 1e9, "it is a time step", above=True),
    "dt_max": Bound(float, 0, 1e9, "it is a time step", above=True),
}


@dataclass(frozen=True)
class Product:
    """A bound on the product of several sizes."""

    most: int
    what: str
    why: str


PARAMETERS = Product(2**31, "weights", "trained, they take 34 GB")
STEP = Product(2**28, "tokens a step", "they are drawn at once, and held by the optimizer's step")
EVALUATION = Product(2**30, "tokens to score", "they are held in memory three times, 24 GB")
TRAINING_SET = Product(2**30, "tokens of a training set", "they are held on the device, 24 GB")
LOGITS = Product(2**32, "logits of one sequence", "they take 16 GB")
SHOW = Product(2**25, "tokens to solve", "each is solved anew for every required context")
CHECK = Product(2**24, "numbers in an input", "it is examined up to eight times as long")
BENCH = Product(2**33, "numbers in a batch", "they take 32 GB")
MATRIX = Product(2**29, "numbers in the matrices H(u)", "they take 2 GB")
CELLS = Product(200_000, "cells", "every one is resolved before the first is trained")


DEFAULT_SHOW = 2**22  # tokens of the examples in `mechbench show`, unless their number is given


def over(product: Product, *sizes: int) -> int:
    """Return the product of `sizes` if it is above the bound, else 0."""
    n = math.prod(sizes)
    return n if n > product.most else 0
