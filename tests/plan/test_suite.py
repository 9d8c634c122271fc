from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from mechbench.catalogue.registry import OPERATORS, TASKS
from mechbench.errors import ConfigError, PluginError
from mechbench.operators.base import make_operator
from mechbench.plan.resolve import _build, resolve
from mechbench.plan.suite import Cell, Suite
from mechbench.plan.suite_file import read_suite
from mechbench.record.config import TUNING_SEED

SHIPPED = sorted((Path(__file__).parents[2] / "tasks").glob("*.toml"))
BOARDS = {
    "recall-vs-length", "recall-vs-vocab", "recall-distance", "recall-long", "induction-vs-length",
    "filters", "hyena-window", "operators-long", "length-generalisation", "mqar", "mad",
    "arithmetic", "majority", "counting", "icl-functions", "state-tracking", "flip-flop", "copying",
    "regbench", "lookup",
}  # fmt: skip
NAMES = BOARDS | {"quick", "first-release", "smoke", "card", "card-quick"}
OF_FILTERS = {"filters", "hyena-window"}  # boards of one operator


def suite(tmp_path: Path, text: str) -> Suite:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return read_suite(path)


TUNING = {TUNING_SEED, TUNING_SEED + 1, TUNING_SEED + 2}
HEAD = """title = "T"
seeds = [0, 1]
lrs = [1e-3, 4e-3]
"""


def test_cells_are_the_product_of_everything(tmp_path: Path) -> None:
    cells = suite(
        tmp_path,
        HEAD
        + """tasks = ["recall", "induction"]
        operators = ["hyena", "attention"]
        [grid]
        seqlen = [64, 128]
        """,
    ).cells("cpu")
    assert len(cells) == len({c.cell_id for c in cells}) == 2 * 2 * 2 * 2 * (2 + 3)
    assert {c.config.seed for c in cells if not c.config.tunes} == {0, 1}
    assert {c.config.seed for c in cells if c.config.tunes} == TUNING
    assert all(c.cell_id == c.config.cell_id for c in cells)
    assert {c.config.lr for c in cells} == {1e-3, 4e-3}


def test_cells_that_choose_a_rate_are_scored_where_they_are_trained(tmp_path: Path) -> None:
    """But for what is another model where it is built for longer inputs."""
    cells = suite(
        tmp_path,
        HEAD
        + """tasks = ["recall"]
        operators = ["attention", "aft"]
        [settings]
        seqlen = 64
        eval_seqlens = [128, 256]
        """,
    ).cells("cpu")
    found = {(c.config.operator, c.config.tunes, c.config.eval_seqlens) for c in cells}
    assert found == {
        ("attention", True, (64,)),
        ("attention", False, (64, 128, 256)),
        ("aft", True, (64, 128, 256)),
        ("aft", False, (64, 128, 256)),
    }
    assert all(
        resolve(**cell.call, device="cpu")[0].cell_id == cell.cell_id == cell.config.cell_id
        for cell in cells
    )


def test_a_cell_is_what_run_resolves(tmp_path: Path) -> None:
    cells = suite(
        tmp_path,
        HEAD
        + """
        [settings]
        budget_sequences = 1000
        curriculum = "none"
        eval_seqlens = [64, 256]
        [grid]
        task.min_distance = [0, 8]
        [[tasks]]
        name = "recall"
        settings = { vocab_size = 30, seqlen = 128 }
        [[operators]]
        name = "hyena"
        options = { order = 3 }
        grid = { operator.emb_dim = [3, 5], operator.variant = ["paper"] }
        lrs = [2e-3]
        """,
    ).cells("cpu")
    assert len(cells) == 2 * 2 * 2
    config = cells[-1].config
    assert (config.task_options, config.vocab_size) == ({"min_distance": 8}, 30)
    options = config.operator_options
    assert (options["order"], options["emb_dim"], options["variant"]) == (3, 5, "paper")
    assert (config.lr, config.seed, config.budget_tokens) == (2e-3, 1, 1000 * 130)
    assert config.eval_seqlens == (64, 128, 256)
    for cell in cells:
        assert resolve(**cell.call, device="cpu")[0] == cell.config


def test_inner_settings_count_more_and_equal_cells_count_once(tmp_path: Path) -> None:
    cells = suite(
        tmp_path,
        """title = "T"
        operators = ["attention"]
        [settings]
        d_model = 32
        batch_size = 8
        budget_tokens = 5000
        [grid]
        seqlen = [64]
        [[tasks]]
        name = "recall"
        [[tasks]]
        name = "recall"
        settings = { vocab_size = 20 }
        [[tasks]]
        name = "recall"
        settings = { d_model = 128, budget_sequences = 900 }
        grid = { seqlen = [256] }
        [[tasks]]
        name = "recall"
        settings = { n_train = 100, budget_epochs = 2 }
        """,
    ).cells("cpu")
    assert [(c.config.d_model, c.config.seqlen, c.config.budget_tokens) for c in cells] == [
        (32, 64, 5000),
        (128, 256, 900 * 258),
        (32, 64, 2 * 100 * 66),
    ]


def test_cells_that_differ_in_their_budget_are_one_of_the_largest(tmp_path: Path) -> None:
    text = "tasks = ['recall']\noperators = ['attention']\ngrid.budget_tokens = [%s]\n"
    for budgets in ("20000, 50000", "50000, 20000"):
        cells = suite(tmp_path, HEAD + text % budgets).cells("cpu")
        assert {cell.config.budget_tokens for cell in cells} == {50_000}
        assert {cell.call["budget_tokens"] for cell in cells} == {50_000}
        alone = suite(tmp_path, HEAD + text % "9000").cells("cpu")
        assert [cell.cell_id for cell in cells] == [cell.cell_id for cell in alone]


def test_a_suite_may_set_the_schedule(tmp_path: Path) -> None:
    text = "tasks = ['recall']\noperators = ['attention']\n"
    cells = suite(tmp_path, HEAD + text + "grid.schedule = ['wsd', 'constant']\n").cells("cpu")
    assert {cell.config.schedule for cell in cells} == {"wsd", "constant"}
    with pytest.raises(ConfigError, match=r":\d+: settings.schedule: schedule is 'cosine': it wou"):
        suite(tmp_path, HEAD + text + "settings.schedule = 'cosine'\n").cells("cpu")


def test_backbone_has_the_short_convolution_that_a_suite_sets(tmp_path: Path) -> None:
    text = """title = "T"
        operators = ["attention"]
        tasks = ["recall"]
        """
    with_it, from_grid, plain = (
        suite(tmp_path, text + more).cells("cpu")
        for more in ("settings.short_conv = 4", "grid.short_conv = [0, 4]", "")
    )
    assert [c.config.short_conv for c in (*with_it, *from_grid, *plain)] == [4, 0, 4, 0]
    assert [c.cell_id for c in from_grid] == [plain[0].cell_id, with_it[0].cell_id]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks = ['recal']\noperators = ['hyena']", ":4: tasks[0]: unknown task 'recal': did"),
        (
            "tasks = ['recall']\noperators = ['hyena']\n[settings]\nbudget_epochs = 2",
            ": settings.budget_epochs: budget_epochs needs n_train",
        ),
        ("tasks = ['recall']\noperators = ['hyna']", ":5: operators[0]: unknown operator 'hyna'"),
        (
            "tasks = ['recall']\n[[operators]]\nname = 'hyena'\noptions.ordr = 2",
            ":7: operators[0].options.ordr: operator 'hyena' has no option 'ordr': did you mean",
        ),
        (
            "tasks = ['recall']\n[[operators]]\nname = 'hyena'\ngrid.operator.order = ['two']",
            ":7: operators[0].grid.operator.order: option 'order' of operator 'hyena' is 'two'",
        ),
        (
            "tasks = ['recall']\noperators = ['hyena']\n[grid]\nseqlen = [64, 65]",
            ":7: grid.seqlen: seqlen is 65: recall needs an even number",
        ),
        (
            "tasks = ['recall']\noperators = ['hyena']\n[grid]\ntask.min_distance = [0, 99]",
            ":7: grid.task.min_distance: min_distance is 99",
        ),
        (
            "tasks = ['recall']\noperators = ['hyena']\n[settings]\nd_model = 0",
            ":7: settings.d_model: is 0: expected at least 1",
        ),
        (
            "tasks = ['recall']\noperators = ['hyena']\n[settings]\ncurriculum = 'yes'",
            ":7: settings.curriculum: curriculum is 'yes'",
        ),
    ],
)
def test_error_names_file_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as got:
        suite(tmp_path, HEAD + text).cells("cpu")
    assert message in str(got.value)
    assert "mine.toml" in str(got.value)


def test_plugin_of_a_suite_is_found_beside_it(tmp_path: Path, clean_registry: None) -> None:
    (tmp_path / "op.py").write_text(
        "import torch, mechbench\n"
        "@mechbench.register_operator('from-a-suite')\n"
        "class Op(torch.nn.Identity):\n"
        "    def __init__(self, d_model: int, max_seqlen: int) -> None:\n"
        "        super().__init__()\n"
    )
    text = HEAD + "plugins = ['op.py']\ntasks = ['recall']\noperators = ['from-a-suite']"
    cells = suite(tmp_path, text).cells("cpu")
    assert len(cells) == 2 * (2 + 3)
    assert len(cells[0].config.plugins) == 1


def test_plugin_of_a_moved_suite_is_found_from_the_current_folder(
    tmp_path: Path, clean_registry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of the copy that lies in a leaderboard's folder."""
    (tmp_path / "boards").mkdir()
    moved = tmp_path / "boards" / "mine.toml"
    moved.write_text(
        HEAD + "plugins = ['tools/op.py']\ntasks = ['recall']\noperators = ['from-elsewhere']"
    )
    assert read_suite(moved).plugins == (str(tmp_path / "boards" / "tools" / "op.py"),)
    with pytest.raises(PluginError, match=r"plugin .*boards/tools/op\.py cannot be read: No such"):
        read_suite(moved).cells("cpu")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "op.py").write_text(
        "import torch, mechbench\n"
        "@mechbench.register_operator('from-elsewhere')\n"
        "class Op(torch.nn.Identity):\n"
        "    def __init__(self, d_model: int, max_seqlen: int) -> None:\n"
        "        super().__init__()\n"
    )
    monkeypatch.chdir(tmp_path)
    assert len(read_suite(moved).cells("cpu")) == 2 * (2 + 3)


def test_planning_builds_an_operator_once_not_for_every_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = ", ".join(str(64 + 2 * i) for i in range(50))
    text = f"tasks = ['recall']\noperators = ['hyena', 'attention']\ngrid.seqlen = [{lengths}]"
    built: list[str] = []

    def counted(name: str, **options: Any) -> nn.Module:
        built.append(name)
        return make_operator(name, **options)

    monkeypatch.setattr("mechbench.operators.base.make_operator", counted)
    _build.cache_clear()
    assert len(suite(tmp_path, HEAD + text).cells("cpu")) == 2 * 50 * 2 * (2 + 3)
    assert sorted(built) == ["attention", "hyena"]


def test_the_suites_are_all_there() -> None:
    assert {path.stem for path in SHIPPED} == NAMES


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_suite_is_sound(path: Path) -> None:
    """Names that are not registered yet are left out; the others must resolve."""
    found = read_suite(path)
    assert found.question
    assert set(found.seeds) >= {0}
    known = dataclasses.replace(
        found,
        operators=tuple(e for e in found.operators if e.name in OPERATORS.names()),
        tasks=tuple(e for e in found.tasks if e.name in TASKS.names()),
    )
    assert known.operators
    cells = known.cells("cpu")
    if path.stem in BOARDS:
        check_board(found, cells)
    assert bool(cells) == bool(known.tasks)
    assert len(trials(cells)) <= 1, "as many trials for every operator"
    budgets: dict[tuple[object, ...], set[int]] = {}
    for cell in cells:
        c = cell.config
        point = (c.task, str(c.task_options), c.seqlen, c.vocab_size, c.d_model, c.n_train)
        budgets.setdefault(point, set()).add(c.budget_tokens)
    assert all(len(b) == 1 for b in budgets.values()), "one budget for all operators"


def check_board(found: Suite, cells: list[Cell]) -> None:
    """Check what a board owes its operators: enough of them, all at every point, tuned alike."""
    points: dict[str, set[str]] = {}
    seeds: dict[str, set[int]] = {}
    for cell in cells:
        c = cell.config
        row = f"{c.operator} {sorted(c.operator_options.items())}"
        alike = dataclasses.replace(
            c, operator="", operator_options={}, sources={}, lr=1.0, seed=0, max_seqlen=0,
            eval_seqlens=(c.seqlen,) if c.tunes else c.eval_seqlens,
        )  # fmt: skip
        points.setdefault(row, set()).add(alike.cell_id)
        if not c.tunes:
            seeds.setdefault(cell.group, set()).add(c.seed)
    named = [math.prod(len(values) for values in e.grid.values()) for e in found.operators]
    assert len(points) == sum(named), "no two entries plan the same cells"
    assert len(points) >= (6 if found.name in OF_FILTERS else 12)
    assert len({frozenset(found) for found in points.values()}) == 1, "all at every point"
    assert {frozenset(found) for found in seeds.values()} <= {
        frozenset(range(3)),
        frozenset(range(5)),
    }
    rates = sorted({cell.config.lr for cell in cells if cell.config.tunes})
    assert len(rates) >= 5
    assert [b / a for a, b in itertools.pairwise(rates)] == pytest.approx([2.0] * (len(rates) - 1))


def trials(cells: list[Cell]) -> set[int]:
    """Return how many cells choose the rate at a point, of all operators and points."""
    points = Counter(cell.group for cell in cells if cell.config.tunes)
    return set(points.values()) | ({0} if {c.group for c in cells} - set(points) else set())


def test_every_operator_gets_the_same_trials(tmp_path: Path) -> None:
    text = "tasks = ['recall']\n[[operators]]\nname = 'hyena'\n[[operators]]\nname = 'attention'\n"
    assert trials(suite(tmp_path, HEAD + text).cells("cpu")) == {2 * 3}
    assert trials(suite(tmp_path, HEAD + text + "lrs = [1e-4, 2e-4]").cells("cpu")) == {2 * 3}
    for own in ("[1e-3]", "[1e-3, 2e-3, 4e-3]", "'grid'"):
        with pytest.raises(ConfigError, match=r"operators\[1\].lrs: attention would have \d learn"):
            suite(tmp_path, HEAD + text + f"lrs = {own}").cells("cpu")
    favoured = HEAD + text.replace("'hyena'\n", "'hyena'\nlrs = 'grid'\n")
    with pytest.raises(ConfigError, match=r"operators\[0\].lrs: .*hyena 7: expected as many"):
        suite(tmp_path, favoured).cells("cpu")
    one = "tuning_seeds = [1_000_007]\n"
    assert trials(suite(tmp_path, HEAD + one + text).cells("cpu")) == {2}


def test_reported_cells_may_go_on_and_those_that_choose_a_rate_not(tmp_path: Path) -> None:
    text = "tasks = ['recall']\noperators = ['hyena']\n"
    text += "[settings]\nbudget_tokens = 6_000_000\n"
    for cell in suite(tmp_path, HEAD + "carry_on = 3\n" + text).cells("cpu"):
        wanted = (6_000_000,) if cell.config.tunes else (6_000_000, 12_000_000, 18_000_000)
        assert cell.budgets == wanted
    assert {c.budgets for c in suite(tmp_path, HEAD + text).cells("cpu")} == {(6_000_000,)}


def test_one_rate_needs_no_cells_to_choose_it(tmp_path: Path) -> None:
    text = "title = 'T'\nseeds = [0, 1]\n%s\ntasks = ['recall']\noperators = ['hyena']\n"
    for lrs in ("", "lrs = [2e-3]"):
        cells = suite(tmp_path, text % lrs).cells("cpu")
        assert [cell.config.seed for cell in cells] == [0, 1]
    cells = suite(tmp_path, text % "lrs = 'grid'").cells("cpu")
    grid = [5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2]
    assert sorted({cell.config.lr for cell in cells}) == grid
    assert trials(cells) == {7 * 3}


def test_a_task_may_have_seeds_of_its_own(tmp_path: Path) -> None:
    text = """operators = ["hyena", "attention"]
    [[tasks]]
    name = "recall"
    [[tasks]]
    name = "induction"
    seeds = [5, 6, 7]
    """
    cells = suite(tmp_path, HEAD + text).cells("cpu")
    assert len(cells) == 2 * 2 * ((2 + 3) + (3 + 3))
    for task, seeds in (("recall", {0, 1}), ("induction", {5, 6, 7})):
        own = [c.config for c in cells if c.config.task == task]
        assert {c.seed for c in own} == seeds | TUNING
    bound = HEAD + text.replace("[5, 6, 7]", f"{list(range(50_000))}")
    with pytest.raises(ConfigError, match="200032 cells: expected at most"):
        suite(tmp_path, bound).cells("cpu")


def test_numbers_of_any_spelling_are_one_cell(tmp_path: Path) -> None:
    text = "tasks = ['recall']\noperators = [{ name = 'hyena', options.sine_freq = %s }]\n"
    text += "[settings]\nbudget_tokens = %s\nd_model = %s\nweight_decay = %s\n"
    one = suite(tmp_path, HEAD + text % ("10", "20000", "32", "0")).cells("cpu")
    two = suite(tmp_path, HEAD + text % ("10.0", "2e4", "32.0", "0.0")).cells("cpu")
    assert [cell.cell_id for cell in one] == [cell.cell_id for cell in two]
    near = [
        suite(tmp_path, f"title = 'T'\ntasks = ['recall']\noperators = ['hyena']\nlrs = {lrs}\n")
        for lrs in ("[0.001, 0.0010000004]", "[1, 2]")
    ]
    (a, b), (c, _) = (
        [cell for cell in made.cells("cpu") if not cell.config.tunes] for made in near
    )
    assert a.cell_id != b.cell_id
    assert type(c.config.lr) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[settings]\nn_layers = 2147483648", ":6: settings.n_layers: is 2147483648: expected at"),
        ("[settings]\ngrad_clip = -1", ":6: settings.grad_clip: is -1: expected a positive"),
        ("[settings]\ngrad_clip = nan", ":6: settings.grad_clip: is nan: expected a positive"),
        ("[settings]\nn_test = 1e25", ":6: settings.n_test: is 1e+25: expected at most"),
        ("[settings]\nbudget_sequences = 3", ":6: settings.budget_sequences: budget_tokens is"),
        ("[grid]\ntask.seqlen = [64]", ": 'seqlen' is not an option of the task"),
        (
            "[grid]\noperator.filter_width = [0]",
            ":6: grid.operator.filter_width: filter_width is 0: expected at least 1",
        ),
        (
            f"[grid]\nseqlen = {list(range(2, 2002))}\ntask.min_distance = {list(range(101))}",
            ": 202000 cells: expected at most 200000",
        ),
    ],
)
def test_sizes_of_a_suite_have_bounds(tmp_path: Path, text: str, message: str) -> None:
    head = "title = 'T'\nseeds = [0]\ntasks = ['recall']\noperators = ['hyena']\n"
    with pytest.raises(ConfigError) as got:
        suite(tmp_path, head + text).cells("cpu")
    assert message in str(got.value)
    assert "\n" not in str(got.value)
