"""One result as a few lines of text: what `mechbench run` prints at its end. No torch."""

from __future__ import annotations

from mechbench.results import Result


def summary(result: Result) -> str:
    """Return accuracy per length with interval, chance and baselines, cost, and where it lies."""
    data, config = result.data, result.data["config"]
    head = (
        f"{config['operator']} on {config['task']}: seqlen {config['seqlen']}, "
        f"vocab_size {config['vocab_size']}, d_model {config['d_model']}, "
        f"{config['n_layers']} layers, seed {config['seed']}"
    )
    lines = [head]
    if data["status"] != "ok":
        lines.append(f"  {data['status'].upper()}: {data['reason']}")
    if data["causal"] is False:
        lines.append("  NOT CAUSAL: it looks ahead, and is not ranked")
    if data.get("train_is_test"):  # absent in results of older versions
        lines.append("  training and test ask for the same, by the task's definition")
    for evaluation in data["evaluations"]:
        shortcuts = evaluation["shortcuts"].items()
        best = max(shortcuts, key=lambda item: item[1], default=("none", 0.0))
        lines.append(
            f"  accuracy at {evaluation['seqlen']:>7d}  {evaluation['accuracy']:.2%} "
            f"[{evaluation['ci_low']:.2%}, {evaluation['ci_high']:.2%}]  "
            f"({evaluation['n']} scored; 1 seed; chance {data['chance']:.1%}; "
            f"{best[0]} {best[1]:.1%}; every predictable position "
            f"{evaluation['dense_accuracy']:.2%})"
        )
    rate = data["tokens_per_s"]
    lines.append(
        f"  {'solved' if data['solved'] else 'not solved'} after {data['steps']} steps, "
        f"{data['train_tokens'] / 1e6:.1f} M tokens, {data['seconds']['train']:.1f} s"
        + (f" at {rate / 1e3:,.0f} k tokens/s" if rate else "")
        + (f", peak {data['peak_memory_mib']:,.0f} MiB" if data["peak_memory_mib"] else "")
    )
    lines.append(f"  stored in {result.path.parent}")
    return "\n".join(lines)
