"""One result as a few lines of text: what `mechbench run` prints at its end. No torch."""

from __future__ import annotations

from typing import Any

from mechbench.record.outcome import UNCLEAR, outcome_of
from mechbench.record.results import Result
from mechbench.report.escape import plain
from mechbench.report.labels import called


def summary(result: Result) -> str:
    """Return accuracy per length with interval, chance and baselines, cost, and where it lies."""
    data, config = result.data, result.data["config"]
    vocab = called("vocab_size", config["task"])
    taps = config.get("short_conv", 0)  # absent in results of older versions
    head = (
        f"{plain(config['operator'])} on {plain(config['task'])}: seqlen {config['seqlen']}, "
        f"{vocab} {config['vocab_size']}, d_model {config['d_model']}, "
        f"{config['n_layers']} layers, {f'short_conv {taps}, ' if taps else ''}"
        f"seed {config['seed']}"
    )
    lines = [head]
    if data["status"] != "ok":
        reason = plain(data.get("reason") or "no reason stored")
        lines.append(f"  {data['status'].upper()}: {reason}")
    if data.get("causal") is False:
        lines.append("  NOT CAUSAL: it looks ahead, so it is not ranked")
    if data.get("train_is_test"):  # absent in results of older versions
        lines.append("  training and test ask the same questions, by the task's definition")
    for evaluation in data["evaluations"]:
        shortcuts = evaluation["shortcuts"].items()
        best = max(shortcuts, key=lambda item: item[1], default=("none", 0.0))
        accuracy = (
            f"{evaluation['accuracy']:.2%} "
            f"[{evaluation['ci_low']:.2%}, {evaluation['ci_high']:.2%}]"
        )
        if evaluation.get("non_finite"):
            accuracy = f"NAN ({evaluation['non_finite']} outputs are not finite)"
        lines.append(
            f"  accuracy at {evaluation['seqlen']:>7d}  {accuracy}  "
            f"({evaluation['n']} scored; 1 seed; chance {data['chance']:.1%}; "
            f"{plain(best[0])} {best[1]:.1%}; every predictable position "
            f"{evaluation['dense_accuracy']:.2%})"
        )
    lines += [_cost(data), *_trend(data), f"  stored in {result.path.parent}"]
    return "\n".join(lines)


def _cost(data: dict[str, Any]) -> str:
    """Return what training took; what a result of another version does not say is left out."""
    steps, tokens = data.get("steps"), data.get("train_tokens")
    seconds, rate = (data.get("seconds") or {}).get("train"), data.get("tokens_per_s")
    memory = data.get("peak_memory_mib")
    return (
        f"  {'solved' if data.get('solved') else 'not solved'} after {steps or 0} steps, "
        f"{(tokens or 0) / 1e6:.1f} M tokens, {seconds or 0.0:.1f} s"
        + (f" at {rate / 1e3:,.0f} k tokens/s" if rate else "")
        + (f", peak {memory:,.0f} MiB" if memory else "")
    )


def _trend(data: dict[str, Any]) -> list[str]:
    """Return whether a cell that is not solved was getting there, if that was measured."""
    told = outcome_of(data)
    if told is None or told.slope is None or told.slope_low is None or told.slope_high is None:
        return []
    slope, low, high = (f"{100 * s:+.1f}" for s in (told.slope, told.slope_low, told.slope_high))
    text = (
        f"  validation accuracy was {told.trend or UNCLEAR}: {slope} [{low}, {high}] points a "
        "doubling of tokens, over their last half"
    )
    if told.dense_slope is not None:
        text += f"; over every predictable position {100 * told.dense_slope:+.1f}"
    return [text]
