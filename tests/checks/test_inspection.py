from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import mechbench
from mechbench.catalogue import registry
from mechbench.catalogue.plugins import forget, load_plugin
from mechbench.checks.inspection import Specimen, fresh, portraits, trained
from mechbench.errors import ConfigError, OperatorError, PluginError, ResultError

PLUGIN = """import mechbench
import torch
from torch import nn

@mechbench.register_operator("mine")
class Mine(nn.Module):
    def __init__(self, d_model, max_seqlen):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(d_model))

    def forward(self, u):
        return self.scale * u.cumsum(1)

    def mixing_matrix(self, u):
        L = u.shape[1]
        return torch.ones(L, L).tril().expand(len(u), u.shape[2], L, L)
"""


def run(out: Path, operator: str = "hyena", **settings: object) -> Path:
    """Train for two steps; return the folder."""
    usual: dict[str, object] = {
        "task": "recall",
        "seqlen": 8,
        "vocab_size": 8,
        "d_model": 8,
        "budget_tokens": 1000,
        "n_validation": 16,
        "n_test": 16,
        "device": "cpu",
        "quiet": True,
    }
    result = mechbench.run(operator, out=out, **usual | settings)  # type: ignore[arg-type]
    return result.path.parent


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("runs"))


def test_trained_operator_has_the_stored_weights_and_what_reaches_it(stored: Path) -> None:
    one, other = trained(stored), trained(stored, layer=1, seqlen=5)
    weights = torch.load(stored / "checkpoint.pt", weights_only=True)["model"]
    for layer, specimen in enumerate((one, other)):
        for name, value in specimen.module.state_dict().items():
            assert torch.equal(value, weights[f"blocks.{layer}.operator.{name}"])
    assert one.u.shape == (8, 10, 8)
    assert other.u.shape == (8, 5, 8)
    # behind a layer norm, whose weights two steps have hardly moved
    assert one.u.mean(-1).abs().max() < 0.1
    assert one.title == "hyena, layer 0, trained on recall at 8"
    assert torch.equal(one.u, trained(stored).u)


def test_model_that_reads_numbers_is_looked_into_too(tmp_path: Path) -> None:
    folder = run(tmp_path / "runs", "hyena", task="icl-functions", vocab_size=2)
    specimen = trained(folder, layer=1)
    assert specimen.u.shape == (8, 7, 8)  # points and answers but the last
    assert portraits(specimen, tmp_path / "plots")


def test_looking_leaves_the_run_as_it_is(stored: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in stored.iterdir()}
    portraits(trained(stored), tmp_path)
    assert {path.name: path.read_bytes() for path in stored.iterdir()} == before


def test_filters_are_drawn_where_there_are_any(tmp_path: Path) -> None:
    names = {}
    for operator in ("hyena", "attention"):
        specimen = fresh(operator, {}, d_model=8, seqlen=12, seed=0)
        assert specimen.u.shape == (8, 12, 8)
        names[operator] = [path.name for path in portraits(specimen, tmp_path / operator)]
    assert names["attention"] == [
        f"{stem}.{kind}" for stem in ("mixing_matrix", "gradient_reach") for kind in ("png", "svg")
    ]
    assert set(names["hyena"]) - set(names["attention"]) == {"filters.png", "filters.svg"}


def test_operator_without_a_matrix_or_that_raises_is_one_line(tmp_path: Path) -> None:
    specimen = Specimen("hyena", "x", nn.Linear(4, 4), torch.ones(2, 3, 4))
    with pytest.raises(ConfigError, match="has no matrix form"):
        portraits(specimen, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("clean_registry")
def test_run_of_a_plugin_brings_its_plugin_and_notices_a_change(tmp_path: Path) -> None:
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    folder = run(tmp_path / "runs", "mine", plugins=(str(path),))
    assert portraits(trained(folder), tmp_path / "plots")
    path.write_text(PLUGIN + "# edited\n")
    forget_plugins()
    with pytest.raises(ConfigError, match=r"plugin\.py has changed since"):
        trained(folder)


@pytest.mark.usefixtures("clean_registry")
def test_run_with_a_filter_of_a_plugin_notices_a_change_of_it(tmp_path: Path) -> None:
    path = tmp_path / "plugin.py"
    text = (
        "import mechbench\n"
        "from mechbench.filters.explicit import ExplicitFilter\n"
        "@mechbench.register_filter('mine')\n"
        "class Mine(ExplicitFilter):\n"
        "    pass\n"
    )
    path.write_text(text)
    options = {"filter": "mine"}
    folder = run(tmp_path / "runs", operator_options=options, plugins=(str(path),))
    forget_plugins()
    assert type(trained(folder).module.filter).__name__ == "Mine"
    path.write_text(text + "# edited\n")
    forget_plugins()
    with pytest.raises(ConfigError, match=r"plugin\.py has changed since"):
        trained(folder)


@pytest.mark.usefixtures("clean_registry")
def test_plugin_that_is_gone_is_taken_from_where_it_is_given(tmp_path: Path) -> None:
    path, moved = tmp_path / "plugin.py", tmp_path / "elsewhere" / "moved.py"
    path.write_text(PLUGIN)
    folder = run(tmp_path / "runs", "mine", plugins=(str(path),))
    forget_plugins()
    moved.parent.mkdir()
    path.rename(moved)
    with pytest.raises(PluginError, match=r"plugin\.py of .* is gone: name the file as it was"):
        trained(folder)
    load_plugin(moved)
    assert trained(folder).name == "mine"
    path.write_text(PLUGIN)  # both there: the one that is loaded is the same
    assert trained(folder).name == "mine"
    path.unlink()
    forget_plugins()
    moved.write_text(PLUGIN + "# edited\n")
    load_plugin(moved)
    with pytest.raises(PluginError, match="is gone, no plugin given is the same"):
        trained(folder)


@pytest.mark.usefixtures("clean_registry")
def test_helper_of_a_plugin_that_changed_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    helper, path = tmp_path / "a_helper_of_it.py", tmp_path / "plugin.py"
    helper.write_text("X = 1\n")
    path.write_text("import a_helper_of_it\n" + PLUGIN)
    folder = run(tmp_path / "runs", "mine", plugins=(str(path),))
    assert trained(folder).name == "mine"
    helper.write_text("X = 2\n")
    forget_plugins()
    del sys.modules["a_helper_of_it"]
    with pytest.raises(ConfigError, match="a_helper_of_it has changed since"):
        trained(folder)


def forget_plugins() -> None:
    """As if in another process."""
    for name in list(registry.PLUGIN_FILES):
        forget(name)
        del sys.modules[name]


@pytest.mark.usefixtures("clean_registry")
def test_plugin_that_raises_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN.replace("L = u.shape[1]", "raise ValueError('no matrix')"))
    load_plugin(path)
    with pytest.raises(OperatorError, match="operator 'mine' raised ValueError at line 15"):
        portraits(fresh("mine", {}, d_model=4, seqlen=4, seed=0), tmp_path)


def test_what_is_missing_or_damaged_is_one_line(stored: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="layer is 2: the model has layers 0 to 1"):
        trained(stored, layer=2)
    with pytest.raises(ConfigError, match="seqlen is 11: the run's inputs have 10 tokens"):
        trained(stored, seqlen=11)
    with pytest.raises(ResultError, match=r"config\.json does not exist"):
        trained(tmp_path)
    folder = tmp_path / "copy"
    shutil.copytree(stored, folder)
    checkpoint = folder / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(ResultError, match=r"checkpoint\.pt is corrupt"):
        trained(folder)
    assert checkpoint.exists()  # looked at, not set aside
    checkpoint.unlink()
    with pytest.raises(ResultError, match="the run has not stored any weights"):
        trained(folder)
    shutil.copy(stored / "checkpoint.pt", checkpoint)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"seed": 1}))
    with pytest.raises(ResultError, match="belongs to cell"):
        trained(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ResultError, match=r"config\.json is damaged: it is \[\]"):
        trained(folder)
