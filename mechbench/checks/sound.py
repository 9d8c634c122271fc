"""Soundness: what every operator owes, a PASS or FAIL each."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mechbench.checks.subject import Line, Subject, judged
from mechbench.evaluate import autocast

# Largest movement, relative to the largest output, of what must not move at all.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
_SEQLEN = 128  # soundness is looked at on inputs of at most this length


def soundness(subject: Subject) -> list[Line]:
    """Return the lines; once the shape is wrong, the others are not measured."""
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
    }
    lines = [first]
    for name, measure in measures.items():
        if first.verdict == "FAIL":
            lines.append(Line(name, "-", "not measured: the shape or dtype is wrong"))
        else:
            lines.append(judged(name, lambda measure=measure: measure(subject)))  # type: ignore[misc]
    return lines


def shape_and_dtype(subject: Subject) -> Line:
    """Check (B, L, D) float32 in and out, at several lengths."""
    name, module = "shape and dtype", subject.module()
    lengths = sorted({min(subject.seqlen, L) for L in (1, 2, 7, subject.seqlen)})
    for L in lengths:
        u = subject.inputs(2, L)
        with torch.no_grad():
            y = module(u)
        if not isinstance(y, Tensor):
            return Line(name, "FAIL", f"a {type(y).__name__} for a tensor {tuple(u.shape)}")
        if y.shape != u.shape:
            return Line(name, "FAIL", f"{tuple(y.shape)} for an input {tuple(u.shape)}")
        if y.dtype != u.dtype:
            return Line(name, "FAIL", f"{y.dtype} for an input of {u.dtype}")
    told = ", ".join(map(str, lengths))
    return Line(name, "PASS", f"(B, L, D) float32 to the same, L {told}", lengths)


def finite(subject: Subject) -> Line:
    """Check values and gradients in float32."""
    return _finite(subject, "finite in float32", "float32")


def finite_in_bfloat16(subject: Subject) -> Line:
    """Check values and gradients under bfloat16 autocast."""
    return _finite(subject, "finite in bfloat16", "bfloat16")


def repeats(subject: Subject) -> Line:
    """Check that the same input gives the same output again."""
    u = subject.inputs(2, _length(subject))
    with torch.no_grad():
        one, other = subject.module()(u), subject.module()(u)
    return _still("repeats agree", _moved(one, other), 1e-6, "the same input twice")


def batch_rows(subject: Subject) -> Line:
    """Check that a row's output does not move when the other rows change."""
    module, dtype = subject.exact()
    u, other = (subject.inputs(3, _length(subject), label=x, dtype=dtype) for x in ("u", "other"))
    changed = torch.cat([u[:1], other[1:]])
    with torch.no_grad():
        moved = _moved(module(u)[:1], module(changed)[:1])
    return _still("rows of a batch apart", moved, _TOLERANCE[dtype], "other rows changed")


def gradients(subject: Subject) -> Line:
    """Check that every parameter gets a gradient that is not zero everywhere."""
    module = copy.deepcopy(subject.module()).train()
    u = subject.inputs(2, _length(subject))
    _backward(module(u), subject)
    dead = [
        name
        for name, p in module.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    count = sum(1 for p in module.parameters() if p.requires_grad)
    name = "gradient everywhere"
    if dead:
        return Line(name, "FAIL", f"none in {len(dead)} of {count}: {', '.join(dead[:4])}", dead)
    return Line(name, "PASS", f"all {count} parameter tensors", [])


def state_dict(subject: Subject) -> Line:
    """Check that a state dict restores the function in an operator of another seed."""
    other = subject.build(seed=subject.seed + 1)
    other.load_state_dict(subject.module().state_dict())
    u = subject.inputs(2, _length(subject))
    with torch.no_grad():
        moved = _moved(subject.module()(u), other(u))
    return _still("state dict", moved, 1e-6, "loaded into another")


def causal_by_value(subject: Subject) -> Line:
    """Check that outputs do not move when later inputs change."""
    module, dtype = subject.exact()
    L = _length(subject)
    u, other = (subject.inputs(2, L, label=x, dtype=dtype) for x in ("u", "other"))
    worst = 0.0
    with torch.no_grad():
        before = module(u)
        for cut in _cuts(L):
            after = module(torch.cat([u[:, :cut], other[:, cut:]], 1))
            worst = max(worst, _moved(before[:, :cut], after[:, :cut], before))
    return _still("causal by value", worst, _TOLERANCE[dtype], "later inputs changed")


def causal_by_gradient(subject: Subject) -> Line:
    """Check that no gradient of an output reaches a later input."""
    module, dtype = subject.exact()
    L = _length(subject)
    worst = 0.0
    for cut in _cuts(L):
        u = subject.inputs(2, L, dtype=dtype).requires_grad_()
        _backward(module(u)[:, :cut], subject)
        assert u.grad is not None
        worst = max(worst, _moved(u.grad[:, cut:], torch.zeros_like(u.grad[:, cut:]), u.grad))
    return _still("causal by gradient", worst, _TOLERANCE[dtype], "gradient at later inputs")


def _length(subject: Subject) -> int:
    return min(subject.seqlen, _SEQLEN)


def _cuts(L: int) -> list[int]:
    return sorted({1, max(1, L // 2), L - 1} - {0})


def _backward(y: Tensor, subject: Subject) -> None:
    """Send a random gradient back, so that no symmetry of a plain sum hides anything."""
    generator = torch.Generator().manual_seed(subject.seed)
    weight = torch.randn(y.shape, generator=generator).to(y.device, y.dtype)
    (y * weight).sum().backward()  # type: ignore[no-untyped-call]


def _finite(subject: Subject, name: str, dtype: str) -> Line:
    module: nn.Module = copy.deepcopy(subject.module()).train()
    u = subject.inputs(2, _length(subject)).requires_grad_()
    with autocast(subject.device, dtype):
        y = module(u)
    if not y.isfinite().all():
        return Line(name, "FAIL", "the output has NaN or infinity")
    _backward(y.float(), subject)
    named = [("the input", u), *module.named_parameters()]
    for label, x in named:
        if x.grad is not None and not x.grad.isfinite().all():
            return Line(name, "FAIL", f"the gradient of {label} has NaN or infinity")
    return Line(name, "PASS", "values and gradients")


def _moved(one: Tensor, other: Tensor, whole: Tensor | None = None) -> float:
    """Return the largest difference, relative to the largest value of `whole`; NaN counts."""
    if not one.numel():
        return 0.0
    scale = (one if whole is None else whole).abs().max().clamp_min(1e-30)
    return float((one - other).abs().max() / scale)


def _still(name: str, moved: float, tolerance: float, how: str) -> Line:
    verdict = "PASS" if moved <= tolerance else "FAIL"
    text = f"moved {moved:.1e}, {how} (at most {tolerance:.0e})"
    return Line(name, verdict, text, moved if moved == moved and moved != float("inf") else None)
