"""Soundness: what every operator must do, with a PASS or FAIL for each part."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mechbench.checks.rewarded import causal_once_trained
from mechbench.checks.subject import Finding, Subject, judged
from mechbench.record.seeds import derive
from mechbench.training.evaluation import autocast
from mechbench.training.gate.lookahead import (
    Fault,
    Function,
    by_gradient,
    by_value,
    cuts,
    operator_function,
    repeating,
    undisturbed,
)

# Largest movement, relative to the largest output, of what must not move at all.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
_SEQLEN = 128  # most of soundness is looked at on inputs of at most this length
_ROWS = 4  # sequences in which outputs are to stay where they are
_STEPS = 5  # until gradients must have arrived everywhere


def soundness(subject: Subject) -> list[Finding]:
    """Return the findings; once the shape is wrong, the others are not measured."""
    first = judged("shape and dtype", lambda: shape_and_dtype(subject))
    measures = {
        "finite in float32": finite,
        "finite in bfloat16": finite_in_bfloat16,
        "repeats agree": repeats,
        "rows of a batch apart": batch_rows,
        "gradient everywhere": gradients,
        "state dict": state_dict,
        "causal by value": causal_by_value,
        "causal by gradient": causal_by_gradient,
        "causal once trained": causal_once_trained,
    }
    findings = [first]
    for name, measure in measures.items():
        if first.verdict == "FAIL":
            findings.append(Finding(name, "-", "not measured: the shape or dtype is wrong"))
        else:
            findings.append(judged(name, lambda measure=measure: measure(subject)))  # type: ignore[misc]
    return findings


def shape_and_dtype(subject: Subject) -> Finding:
    """Check (B, L, D) float32 in and out, at several lengths."""
    name, module = "shape and dtype", subject.module()
    lengths = sorted({min(subject.seqlen, L) for L in (1, 2, 7, subject.seqlen)})
    for L in lengths:
        u = subject.inputs(2, L)
        with torch.no_grad():
            y = module(u)
        if not isinstance(y, Tensor):
            return Finding(name, "FAIL", f"a {type(y).__name__} for a tensor {tuple(u.shape)}")
        if y.shape != u.shape:
            return Finding(name, "FAIL", f"{tuple(y.shape)} for an input {tuple(u.shape)}")
        if y.dtype != u.dtype:
            return Finding(name, "FAIL", f"{y.dtype} for an input of {u.dtype}")
    told = ", ".join(map(str, lengths))
    return Finding(name, "PASS", f"(B, L, D) float32 to the same, L {told}", lengths)


def finite(subject: Subject) -> Finding:
    """Check values and gradients in float32."""
    return _finite(subject, "finite in float32", "float32")


def finite_in_bfloat16(subject: Subject) -> Finding:
    """Check values and gradients under bfloat16 autocast."""
    return _finite(subject, "finite in bfloat16", "bfloat16")


def repeats(subject: Subject) -> Finding:
    """Check that the same input gives the same output again."""
    u = subject.inputs(2, _length(subject))
    with torch.no_grad():
        one, other = subject.module()(u), subject.module()(u)
    return _still("repeats agree", _moved(one, other), 1e-6, "the same input twice")


def batch_rows(subject: Subject) -> Finding:
    """Check that a row's output does not move when the other rows change."""
    module, dtype = subject.exact()
    u, other = (subject.inputs(3, _length(subject), label=x, dtype=dtype) for x in ("u", "other"))
    changed = torch.cat([u[:1], other[1:]])
    with torch.no_grad():
        moved = _moved(module(u)[:1], module(changed)[:1])
    return _still("rows of a batch apart", moved, _TOLERANCE[dtype], "other rows changed")


def gradients(subject: Subject) -> Finding:
    """Check that every parameter gets a gradient that is not zero everywhere.

    Behind a projection that starts at zero none arrives at first, so a few steps are taken.
    """
    module = subject.build().train()
    u = subject.inputs(2, _length(subject))
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    optimizer = torch.optim.Adam([p for _, p in trained], lr=1e-2) if trained else None
    dead = [name for name, _ in trained]
    for _ in range(_STEPS):
        _backward(module(u), subject)
        alive = {name for name, p in trained if p.grad is not None and p.grad.any()}
        dead = [name for name in dead if name not in alive]
        if optimizer is None or not dead:
            break
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    name = "gradient everywhere"
    if dead:
        text = f"none in {len(dead)} of {len(trained)}: {', '.join(dead[:4])}"
        return Finding(name, "FAIL", text, dead)
    text = f"all {len(trained)} parameter tensors" if trained else "it has no parameters"
    return Finding(name, "PASS", text, [])


def state_dict(subject: Subject) -> Finding:
    """Check that a state dict restores the function in an operator of another seed."""
    other = subject.build(seed=subject.seed + 1)
    other.load_state_dict(subject.module().state_dict())
    u = subject.inputs(2, _length(subject))
    with torch.no_grad():
        moved = _moved(subject.module()(u), other(u))
    return _still("state dict", moved, 1e-6, "loaded into another")


def causal_by_value(subject: Subject) -> Finding:
    """Check that outputs do not move when later inputs change, beyond rounding."""

    def look(module: nn.Module, u: Tensor, seed: int) -> Fault | None:
        with undisturbed(u.device):
            run, at = operator_function(module, u), cuts(u.shape[1], len(u), seed)
            found = by_value(run, at, seed)
            if found is None:
                module.train()
                found = by_value(repeating(run, seed), at, seed, grad=True)
                # Its own state may move on in training; that has nothing to do with causality.
                found = None if found is not None and found.kind == "restless" else found
        return found

    return _causal("causal by value", subject, look)


def causal_by_gradient(subject: Subject) -> Finding:
    """Check that no gradient of an output reaches a later input, beyond rounding."""

    def look(module: nn.Module, u: Tensor, seed: int) -> Fault | None:
        with undisturbed(u.device):
            run = repeating(operator_function(module, u), seed)
            at = cuts(u.shape[1], len(u), seed)[0]
            return by_gradient(run, at, seed) or _in_training(module, run, at, seed)

    return _causal("causal by gradient", subject, look)


def _in_training(module: nn.Module, run: Function, at: Tensor, seed: int) -> Fault | None:
    module.train()
    return by_gradient(run, at, seed)


def _causal(
    name: str, subject: Subject, look: Callable[[nn.Module, Tensor, int], Fault | None]
) -> Finding:
    """Return what is found at the first length at which anything is."""
    lengths = [L for L in sorted({_length(subject), subject.seqlen}) if L > 1]
    for L in lengths:
        found = look(subject.build(), subject.inputs(_ROWS, L), derive(subject.seed, name))
        if found is not None:
            verdict = "FAIL" if found.kind in ("ahead", "mixed") else "-"
            text = found.text if verdict == "FAIL" else f"not measured: it {found.text}"
            return Finding(name, verdict, text, None)
    return Finding(name, "PASS", f"nothing but rounding, L {', '.join(map(str, lengths))}", lengths)


def _length(subject: Subject) -> int:
    return min(subject.seqlen, _SEQLEN)


def _backward(y: Tensor, subject: Subject) -> None:
    """Send a random gradient back, so that no symmetry of a plain sum hides anything."""
    generator = torch.Generator().manual_seed(subject.seed)
    weight = torch.randn(y.shape, generator=generator).to(y.device, y.dtype)
    if y.requires_grad:  # otherwise no gradient reaches anything, which `gradients` reports
        (y * weight).sum().backward()  # type: ignore[no-untyped-call]


def _finite(subject: Subject, name: str, dtype: str) -> Finding:
    module = subject.build().train()
    u = subject.inputs(2, _length(subject)).requires_grad_()
    with autocast(subject.device, dtype):
        y = module(u)
    if not y.isfinite().all():
        return Finding(name, "FAIL", "the output has NaN or infinity")
    _backward(y.float(), subject)
    named = [("the input", u), *module.named_parameters()]
    for label, x in named:
        if x.grad is not None and not x.grad.isfinite().all():
            return Finding(name, "FAIL", f"the gradient of {label} has NaN or infinity")
    return Finding(name, "PASS", "values and gradients")


def _moved(one: Tensor, other: Tensor, whole: Tensor | None = None) -> float:
    """Return the largest difference, relative to the largest value of `whole`; NaN counts."""
    if not one.numel():
        return 0.0
    scale = (one if whole is None else whole).abs().max().clamp_min(1e-30)
    return float((one - other).abs().max() / scale)


def _still(name: str, moved: float, tolerance: float, how: str) -> Finding:
    verdict = "PASS" if moved <= tolerance else "FAIL"
    text = f"moved {moved:.1e}, {how} (at most {tolerance:.0e})"
    return Finding(name, verdict, text, moved if moved == moved and moved != float("inf") else None)
