"""What `mechbench show` prints: an example of a task, and what its baselines score."""

from __future__ import annotations

from mechbench.catalogue.bounds import DEFAULT_SHOW, SHOW
from mechbench.catalogue.settings import check_product
from mechbench.data.baselines import required_context, shortcut_accuracies
from mechbench.data.streams import draw
from mechbench.record.config import default_examples
from mechbench.record.results import wilson_interval
from mechbench.tasks.base import IGNORE, Batch, Task, matches

_WIDTH = 16  # tokens per line
_EDGE = 32  # tokens shown at each end of a long example


def portrait(name: str, task: Task, seed: int, n_examples: int | None) -> str:
    """Return the text: an example, chance, shortcuts and the required context.

    Raises:
        ConfigError: more tokens than can be solved in reasonable time.
    """
    n_examples = n_examples or min(
        default_examples(task.seqlen)[1], max(16, DEFAULT_SHOW // task.seqlen)
    )
    check_product(SHOW, examples=n_examples, tokens=task.input_seqlen)
    batch = draw(task, n_examples, seed, "test", 0, "cpu")
    scored = batch.targets != IGNORE
    n = int(scored.sum())
    right = int(matches(task.oracle(batch.inputs), batch.targets, batch.also)[scored].sum())
    low, high = wilson_interval(right, n)
    own = repr(task).replace("vocab_size=", f"{task.vocab_name}=", 1)
    lines = [f"{name}: {own}", "", *_example(task, batch), ""]
    shortcuts = shortcut_accuracies(task, batch)
    width = max(20, *map(len, shortcuts))
    lines.append(f"{'chance':{width}s} {task.chance:7.1%}")
    lines += [f"{name:{width}s} {accuracy:7.1%}" for name, accuracy in shortcuts.items()]
    lines.append(f"{'oracle':{width}s} {right / n:7.1%}  [{low:.1%}, {high:.1%}]")
    lines += ["", "required context: the best guess from the last W tokens"]
    context = required_context(task, batch)
    lines.append("W         " + " ".join(f"{w:>7d}" for w in context))
    lines.append("accuracy  " + " ".join(f"{a:>7.1%}" for a in context.values()))
    lines.append(f"(measured on {len(batch.inputs)} examples, {n} scored positions)")
    return "\n".join(lines)


def _example(task: Task, batch: Batch) -> list[str]:
    rows = [t[0].tolist() for t in (batch.inputs, batch.targets, batch.dense_targets)]
    length = len(rows[0])
    shown = list(range(length))
    if length > 2 * _EDGE + _WIDTH:
        shown = [*range(_EDGE), *range(length - _EDGE, length)]
    texts = [[task.describe(token) for token in rows[0]]]
    texts += [[_answer(task, token) for token in row] for row in rows[1:]]
    width = max(len(texts[r][i]) for r in range(3) for i in shown)
    width = max(width, len(str(length - 1)))
    lines: list[str] = []
    labels = ("inputs", "scored targets", "dense targets")
    for start in range(0, len(shown), _WIDTH):
        columns = shown[start : start + _WIDTH]
        if columns[0] and columns[0] - 1 != shown[start - 1]:
            lines += [f"  ... {columns[0] - _EDGE} tokens ...", ""]
        lines.append(f"{'position':15s}" + " ".join(str(i).rjust(width) for i in columns))
        for label, text in zip(labels, texts, strict=True):
            lines.append(f"{label:15s}" + " ".join(text[i].rjust(width) for i in columns))
        lines.append("")
    return lines[:-1]


def _answer(task: Task, target: int | float) -> str:
    if target == IGNORE:
        return "."
    return f"{target:.1f}" if isinstance(target, float) else task.describe(target)
