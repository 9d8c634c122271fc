"""What `mechbench show` prints: an example of a task, and what its baselines score."""

from __future__ import annotations

import textwrap

from mechbench.catalogue.bounds import DEFAULT_SHOW, SHOW
from mechbench.catalogue.settings import check_product
from mechbench.catalogue.terminal import COLUMNS
from mechbench.data.baselines import required_context, shortcut_accuracies
from mechbench.data.streams import draw
from mechbench.record.config import default_examples
from mechbench.record.results import wilson_interval
from mechbench.tasks.base import IGNORE, Batch, Task, matches

_LABEL = 15  # columns that name a line
_MOST = 16  # tokens per line
_WINDOWS = 8  # of the required context per line
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
    lines = [*_wrapped(f"{name}: {own}"), "", *_example(task, batch), ""]
    shortcuts = shortcut_accuracies(task, batch)
    width = max(20, *map(len, shortcuts))
    lines.append(f"{'chance':{width}s} {task.chance:7.1%}")
    lines += [f"{name:{width}s} {accuracy:7.1%}" for name, accuracy in shortcuts.items()]
    lines.append(f"{'oracle':{width}s} {right / n:7.1%}  [{low:.1%}, {high:.1%}]")
    lines += ["", "required context: the best guess from the last W tokens"]
    context = list(required_context(task, batch).items())
    for start in range(0, len(context), _WINDOWS):
        few = context[start : start + _WINDOWS]
        lines.append("W         " + " ".join(f"{w:>7d}" for w, _ in few))
        lines.append("accuracy  " + " ".join(f"{a:>7.1%}" for _, a in few))
    lines.append(f"(measured on {len(batch.inputs)} examples, {n} scored positions)")
    return "\n".join(lines)


def _example(task: Task, batch: Batch) -> list[str]:
    texts = {
        "inputs": [task.describe(token) for token in batch.inputs[0].tolist()],
        "scored targets": [_answer(task, token) for token in batch.targets[0].tolist()],
        "dense targets": [_answer(task, token) for token in batch.dense_targets[0].tolist()],
    }
    if batch.also is not None:
        for i, row in enumerate(batch.also[0].T.tolist(), 1):
            texts[f"also right, {i}"] = [_answer(task, token) for token in row]
    length = len(texts["inputs"])
    parts = [range(length)]
    if length > 2 * _EDGE + _MOST:
        parts = [range(_EDGE), range(length - _EDGE, length)]
    width = max(len(row[i]) for row in texts.values() for part in parts for i in part)
    width = max(width, len(str(length - 1)))
    each = max(1, min(_MOST, (COLUMNS - _LABEL + 1) // (width + 1)))
    lines: list[str] = []
    for columns in (part[i : i + each] for part in parts for i in range(0, len(part), each)):
        if len(parts) > 1 and columns[0] == parts[1][0]:
            lines += [f"  ... {columns[0] - _EDGE} tokens ...", ""]
        lines.append(f"{'position':{_LABEL}s}" + " ".join(str(i).rjust(width) for i in columns))
        for label, text in texts.items():
            lines.append(f"{label:{_LABEL}s}" + " ".join(text[i].rjust(width) for i in columns))
        lines.append("")
    return lines[:-1]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, COLUMNS, subsequent_indent="    ", break_long_words=False)


def _answer(task: Task, target: int | float) -> str:
    if target == IGNORE:
        return "."
    return f"{target:.1f}" if isinstance(target, float) else task.describe(target)
