"""Throw random command lines and suites at the command line; count tracebacks and hangs.

    python scripts/fuzz_cli.py --lines 5000 --suites 2000 --seed 1

Every line runs in this process through click, in a folder of its own for the whole session, with an
alarm after 30 s of its own computing or 300 s of any kind. Nothing is trained or measured: `run`
stops right before its first step, `check`, `bench` and `inspect` before they build the operator
that they look at, and sweeps are dry. All that is refused must be refused with one line and exit
code 2. What breaks is printed; exit code 1: some line did.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

LIMIT_S = 30.0
WALL_S = 10 * LIMIT_S  # on a machine with other work
OPERATORS = (
    "hyena", "attention", "aft", "gss", "h3", "rwkv", "s4d", "retnet", "mamba2", "hybrid",
    "linear-attention", "gated-deltanet", "sliding-attention", "eager-attention", "hyna", "fla:X",
)  # fmt: skip
TASKS = (
    "recall", "induction", "mqar", "majority", "counting", "arithmetic", "icl-functions",
    "selective-copying", "fuzzy-recall", "noisy-recall", "compression", "memorization",
    "multi-key-recall", "recal",
)  # fmt: skip
SOUND = ("1", "2", "4", "8", "16", "32", "64", "128", "256", "1000", "2e4", "0.5", "1e-3", "7")
ABSURD = (
    "0", "-1", "-0.0", "1e25", "10" + "0" * 24, "nan", "inf", "-inf", "2147483648", "4294967296",
    "9223372036854775807", "9223372036854775808", "1e308", "1e-320", "", " ", "abc", "1_000",
    "0x10", "3.5", "9" * 5000, "[1, 2]", "{", "none", "true", "-h", "--", "=", "\u0663", "a\nb",
    "1,2,3", "99999999", "16777216", "1048577",
)  # fmt: skip
OPTIONS = (
    "order", "filter", "filter_width", "filter_layers", "emb_dim", "filter_lr", "n_heads", "chunk",
    "expand", "expand_v", "d_state", "window", "rotary_base", "pattern", "hyena.order", "backend",
    "dt_min", "sine_freq", "variant", "short_filter", "n_taps", "d_model", "max_seqlen", "layer",
    "name", "nothing", "fast_decay", "filter_norm", "filter_init_std",
)  # fmt: skip
TASK_OPTIONS = (
    "min_distance", "n_pairs", "induction_len", "n_triggers", "key_len", "value_len", "lead",
    "n_noise", "noise_share", "map_seed", "n_copied", "power", "random_filler", "seqlen",
    "vocab_size", "name", "nothing", "self", "batch_size",
)  # fmt: skip
DEVICES = ("cpu", "auto", "cuda", "cuda:0", "cuda:99999999999999999999", "gpu", "cpu:0", "")
FLAGS = {
    "run": (
        "--seqlen", "--vocab-size", "--d-model", "--n-layers", "--lr", "--budget", "--batch-size",
        "--seed", "--eval-seqlen", "--test-examples", "--checkpoint-every", "--data-parallel",
        "--short-conv",
    ),
    "show": ("--seqlen", "--vocab-size", "--seed", "--examples"),
    "check": ("--seqlen", "--d-model", "--seed"),
    "bench": ("--seqlen", "--d-model", "--tokens", "--repeats"),
    "inspect": ("--seqlen", "--d-model", "--seed", "--layer"),
    "sweep": ("--jobs", "--jobs-per-device", "--checkpoint-every"),
    "watch": ("--every", "--last"),
    "list": (), "report": (), "leaderboard": (),
}  # fmt: skip
SETTINGS = (
    "seqlen", "vocab_size", "d_model", "n_layers", "weight_decay", "warmup_steps", "grad_clip",
    "batch_size", "budget_tokens", "budget_sequences", "budget_epochs", "n_train", "n_test",
    "n_validation", "validate_every", "dtype", "loss_on", "curriculum", "allow_noncausal",
    "short_conv", "eval_seqlens", "seed", "lr", "nothing",
)  # fmt: skip
TOML = (
    "1", "2", "8", "64", "128", "256", "2e4", "0.5", "1e-3", "0", "-1", "nan", "inf", "1e25",
    "true", "'auto'", "'x'", "''", "[]", "[64]", "[1, 2]", "{}", "{a = 1}", "9223372036854775808",
    "1e308", "2147483648", "100000000000000000000000000", "1979-05-27", "[[1]]", "'64'",
)  # fmt: skip


class Hang(BaseException):
    """A line took longer than the limit."""


class Stop(SystemExit):
    """Everything before the work itself went well."""


def value(draw: random.Random) -> str:
    """Return a number as a user may write it, sound four times of five."""
    return draw.choice(SOUND if draw.random() < 0.8 else ABSURD)


def toml(draw: random.Random) -> str:
    """Return a value of a suite, a sound number two times of three."""
    return draw.choice(TOML[:8] if draw.random() < 0.67 else TOML)


def pair(draw: random.Random, names: tuple[str, ...]) -> str:
    """Return KEY=VALUE, or something like it."""
    equals = "=" if draw.random() < 0.95 else ""
    filters = ("fno", "ssm", "ckconv", "conv1d", "transfer", "paper", "l1", "hyena,attention")
    text = draw.choice(filters) if draw.random() < 0.15 else value(draw)
    return f"{draw.choice(names)}{equals}{text}"


def line(draw: random.Random) -> list[str]:
    """Return the arguments of one command."""
    name = draw.choice([*FLAGS, "run", "run", "run", "show"])
    args = [name]
    if name in ("run", "check", "bench", "inspect") and draw.random() < 0.95:
        args += ["--operator", draw.choice(OPERATORS)]
    if name == "run" and draw.random() < 0.95:
        args += ["--task", draw.choice(TASKS)]
    if name == "show":
        args.append(draw.choice(TASKS))
    if name == "list":
        args.append(draw.choice(("operators", "tasks", "x", "")))
    if name == "sweep":
        args += [draw.choice(("good.toml", "absent.toml", ".", "broken.toml")), "--dry-run"]
    if name == "watch":
        args += ["--once", draw.choice(("runs", "absent", "good.toml"))]
    if name == "report":
        args += draw.sample(("runs", "absent", "good.toml", "."), draw.randrange(3))
    if name == "leaderboard":
        args += draw.choice((["build"], ["build", "runs"], ["submit"], ["submit", "runs"], []))
    for _ in range(draw.randrange(4)):
        if FLAGS[name]:
            args += [draw.choice(FLAGS[name]), value(draw)]
    for _ in range(draw.randrange(3)):
        if name in ("run", "check", "bench", "inspect"):
            args += ["--option", pair(draw, OPTIONS)]
    for _ in range(draw.randrange(2)):
        if name in ("run", "show"):
            args += ["--task-option", pair(draw, TASK_OPTIONS)]
    if name in ("run", "check", "bench", "sweep") and draw.random() < 0.3:
        args += ["--device", draw.choice(DEVICES)]
    if draw.random() < 0.08:
        args += ["--plugin", draw.choice(("absent.py", ".", "good.toml", "", "empty.py"))]
    if draw.random() < 0.08:
        args.insert(draw.randrange(len(args) + 1), draw.choice(("-h", "--help", "--", "-x", "")))
    if draw.random() < 0.05:
        del args[draw.randrange(len(args))]
    if args[:1] == ["watch"] and "--once" not in args:
        args.append("--once")  # or it watches until it is interrupted
    return args


def suite(draw: random.Random) -> str:
    """Return the text of a suite: mostly sound, with a few odd values or lines."""
    oddness = draw.choice((0.0, 0.02, 0.1, 0.4))

    def some(sound: str) -> str:
        return draw.choice(TOML) if draw.random() < oddness else sound

    def names(all_: tuple[str, ...]) -> str:
        return "[" + ", ".join(repr(n) for n in draw.sample(all_, draw.randint(1, 2))) + "]"

    def sound(key: str) -> str:
        known = {
            "dtype": "'float32'", "loss_on": "'scored'", "curriculum": "'none'",
            "allow_noncausal": "true", "eval_seqlens": "[128, 256]", "seqlen": "256",
            "vocab_size": "64", "n_train": "1024", "budget_tokens": "1e8",
            "budget_sequences": "1000", "filter": "'fno'", "pattern": "'hyena,s4d'",
            "variant": "'paper'", "backend": "'torch'", "filter_norm": "'l1'",
        }  # fmt: skip
        return some(known.get(key, draw.choice(TOML[:6])))

    rows = [f"title = {some(repr('T'))}", f"seeds = {some('[0, 1]')}", f"lrs = {some('[1e-3]')}"]
    rows += [f"operators = {some(names(OPERATORS[:-2]))}", f"tasks = {some(names(TASKS[:-1]))}"]
    if draw.random() < oddness:
        rows.append(f"plugins = {draw.choice(TOML)}")
    keys = SETTINGS if draw.random() < oddness else SETTINGS[:-3]
    rows.append("[settings]")
    rows += [f"{key} = {sound(key)}" for key in draw.sample(keys, draw.randrange(4))]
    rows.append("[grid]")
    for key in draw.sample(keys, draw.randrange(3)):
        rows.append(f"{key} = [{', '.join(sound(key) for _ in range(draw.randint(1, 2)))}]")
    for kind, known in (("task", TASK_OPTIONS), ("operator", OPTIONS)):
        if draw.random() < 0.3:
            key = draw.choice(known)
            rows.append(f"{kind}.{key!r} = [{sound(key)}, {toml(draw)}]")
    if draw.random() < oddness:
        rows[draw.randrange(len(rows))] = draw.choice(("[[tasks]]", "[x]", "= 1", "a.b.c = 1", ""))
    return "\n".join(rows) + "\n"


def outcome(args: list[str]) -> str:
    """Run one line; return what came of it: "ok", "refused", "failed", or what broke."""
    from mechbench.cli import main

    out, err = io.StringIO(), io.StringIO()
    code: object = 0

    def alarm(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, alarm)
    signal.signal(signal.SIGPROF, alarm)
    signal.setitimer(signal.ITIMER_REAL, WALL_S)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    faulthandler.dump_traceback_later(2 * WALL_S, exit=True)  # C code lets no alarm through
    try:
        with (
            mock.patch.object(sys, "argv", ["mechbench", *args]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as stop:
        code = stop.code or 0
    except Hang:
        return "hang"
    except BaseException:
        return f"traceback: {traceback.format_exc()}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
    said = [text for text in err.getvalue().split("\n") if text.strip()]
    if "Hang" in err.getvalue():  # the alarm rang inside a callback that lets nothing through
        return "hang"
    if "Traceback" in err.getvalue():
        return f"traceback: {err.getvalue()}"
    if code == 2 and (len(said) != 1 or not said[0].startswith("mechbench: error: ")):
        refused = all(text.startswith("mechbench: refused: ") for text in said)
        return "refused" if said and refused else f"not one line: {said[:5]}"
    return {0: "ok", 2: "refused"}.get(code, "failed")  # type: ignore[call-overload]


@contextlib.contextmanager
def without_work() -> Iterator[None]:
    """Let every command stop where its work would begin."""
    import mechbench.bench.session
    import mechbench.checks.examination
    import mechbench.checks.inspection
    import mechbench.training.launch
    import mechbench.training.train_cell

    def stop(*_: object, **__: object) -> None:
        raise Stop(0)

    places = (
        (mechbench.training.train_cell, "train"),
        (mechbench.bench.session, "machine_rates"),
        (mechbench.checks.examination, "soundness"),
        (mechbench.checks.inspection, "portraits"),
        (mechbench.training.launch, "launch"),
    )
    with contextlib.ExitStack() as stack:
        for module, name in places:
            stack.enter_context(mock.patch.object(module, name, stop))
        yield


def count(n: int, make: Callable[[int], list[str]], show: Callable[[int], str]) -> Counter[str]:
    """Run `n` lines; print those that break."""
    found: Counter[str] = Counter()
    for i in range(n):
        args = make(i)
        began = time.monotonic()
        result = outcome(args)
        kind = result.partition(":")[0]
        found[kind] += 1
        if kind not in ("ok", "refused", "failed"):
            took = time.monotonic() - began
            print(f"--- {i} ({took:.1f} s): {args!r}\n{show(i)}{result}", flush=True)
    return found


def main() -> int:
    """Run the lines and the suites; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lines", type=int, default=300)
    parser.add_argument("--suites", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ.pop("MECHBENCH_PLUGINS", None)
    bad = 0
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), without_work():
        Path("runs").mkdir()
        Path("empty.py").touch()
        Path("broken.toml").write_text("title = [")
        Path("good.toml").write_text("title = 'T'\ntasks = ['recall']\noperators = ['hyena']\n")

        def commands(i: int) -> list[str]:
            return line(random.Random(f"line {given.seed} {i}"))

        def suites(i: int) -> list[str]:
            text = suite(random.Random(f"suite {given.seed} {i}"))
            Path("suite.toml").write_text(text, encoding="utf-8")
            return ["sweep", "suite.toml", "--dry-run", "--device", "cpu"]

        for name, n, make, show in (
            ("command lines", given.lines, commands, lambda i: ""),
            ("suites", given.suites, suites, lambda i: Path("suite.toml").read_text()),
        ):
            found = count(n, make, show)
            print(f"{n} {name}: {', '.join(f'{k} {v}' for k, v in sorted(found.items()))}")
            bad += sum(v for k, v in found.items() if k not in ("ok", "refused", "failed"))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
