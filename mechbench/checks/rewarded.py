"""Does the operator look ahead once that pays? It is trained on a task where nothing else does.

The task is to name the next of uniformly random tokens: no causal model is ever better than chance
there, and every branch that looks ahead is given a reason to open, one that starts at zero too.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mechbench.checks.subject import Finding, Subject
from mechbench.record.seeds import derive
from mechbench.training.gate.lookahead import (
    Fault,
    by_gradient,
    by_value,
    cuts,
    model_function,
    repeating,
    undisturbed,
)
from mechbench.training.model import Backbone

_NAME = "causal once trained"
_SEQLEN, _VOCABULARY, _ROWS, _TEST_ROWS = 32, 8, 8, 64
_LR = 1e-2
_SIGMAS = 5.0  # above chance


def causal_once_trained(subject: Subject) -> Finding:
    """Train a small model around the operator on what only a look-ahead can tell; probe it."""
    with undisturbed(torch.device(subject.device)):
        model = _train(subject)
        accuracy, n = _score(model, subject)
        chance = 1 / _VOCABULARY
        most = chance + _SIGMAS * math.sqrt(chance * (1 - chance) / n)
        told = f"{accuracy:.1%} of random next tokens after {subject.steps} steps"
        if accuracy > most:
            text = f"{told}: without a look-ahead {chance:.1%}"
            return Finding(_NAME, "FAIL", text, accuracy)
        for L in sorted({min(subject.seqlen, _SEQLEN), subject.seqlen}):
            found = _probe(model, _tokens(subject, 4, L, "probe"), subject) if L > 1 else None
            if found is not None and found.kind in ("not finite", "unstable"):
                return Finding(_NAME, "-", f"not measured: the trained model {found.text}")
            if found is not None and found.kind in ("ahead", "mixed"):
                text = f"after {subject.steps} steps: {found.text}"
                return Finding(_NAME, "FAIL", text, accuracy)
    return Finding(_NAME, "PASS", f"{told} (chance {chance:.1%}), nothing but rounding", accuracy)


def _train(subject: Subject) -> Backbone:
    torch.manual_seed(derive(subject.seed, "check", "trained"))
    model = Backbone(
        subject.operator,
        subject.options,
        vocab_size=_VOCABULARY,
        d_model=subject.d_model,
        n_layers=1,
        max_seqlen=subject.seqlen,
    ).to(subject.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=_LR)
    for step in range(subject.steps):
        tokens = _tokens(subject, _ROWS, 1 + min(subject.seqlen, _SEQLEN), f"train {step}")
        logits = model(tokens[:, :-1])
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model


@torch.no_grad()
def _score(model: Backbone, subject: Subject) -> tuple[float, int]:
    """Return the accuracy on next tokens, all but the last, and of how many."""
    tokens = _tokens(subject, _TEST_ROWS, 1 + min(subject.seqlen, _SEQLEN), "test")
    right = model.eval()(tokens[:, :-1]).argmax(-1) == tokens[:, 1:]
    return float(right.double().mean()), right.numel()


def _probe(model: Backbone, tokens: Tensor, subject: Subject) -> Fault | None:
    seed = derive(subject.seed, "check", "probe")
    at = cuts(tokens.shape[1], len(tokens), seed)
    run = model_function(model.eval(), tokens)
    found = by_value(run, at, seed)
    if found is not None:
        return found
    model.train()
    return by_gradient(repeating(run, seed), at[0], seed)


def _tokens(subject: Subject, B: int, L: int, label: str) -> Tensor:
    generator = torch.Generator().manual_seed(derive(subject.seed, "check", label))
    return torch.randint(_VOCABULARY, (B, L), generator=generator).to(subject.device)
