"""The complete config: loading it again gives the same training for every variant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lrexp.config.config import Config, resolve_units, resolved_tree
from lrexp.config.document import read_document, starter, to_yaml
from lrexp.config.load import load_config
from lrexp.config.reader import read_yaml
from lrexp.config.units import Clock

from .good_config import GOOD

CLOCK = Clock(total_steps=220, steps_per_epoch=22, samples_per_step=64, tokens_per_sample=None)

CONFIGS = {
    "defaults": "",
    "numbers": "find_lr: {min_lr: 1e-7, max_lr: 3}\nseed: 0\n",
    "units": "schedule: {name: cosine, warmup: 5%}\ntrain: {duration: 10ep, eval_every: 64sa}\n",
    "variants": """\
schedule: {name: cosine, warmup: 1ep, min_lr: 1e-5}
train: {grad_clip: 1.0}
compare:
  seeds: 3
  variants:
    same: {}
    plain: {schedule: constant}
    longer: {schedule.warmup: 20%}
    other: {schedule: {name: wsd, warmup: 5, decay: 20%}, train.grad_clip: null}
    adam: {optimizer: {name: Adam, lr: 0.1e-4, args: {betas: [0.5, 0.9]}}}
    wide: {model.args.hidden: [7], model.args.activation: gelu}
    tiny: {optimizer.lr: 1.2345678901234567e-9}
    short: {train.duration: 5ep, train.eval_every: 10%}
    batch: {data.batch_size: 32, precision: fp64}
    groups: {optimizer.groups: [{match: "layers.0.*", lr_scale: 10}]}
""",
    "grid": """\
compare:
  grid:
    optimizer.lr: [0.5, 1e-7]
    schedule: [constant, {name: multi_step, milestones: [50%, 8ep], factors: [0.5, 0.1]}]
""",
    "combined": """\
schedule:
  name: combined
  parts:
  - {start: 0, end: 50%, schedule: {name: cosine, warmup: 1ep}}
  - {start: 50%, end: 10ep, schedule: linear}
""",
    "torch": "schedule: {name: StepLR, args: {step_size: 3}, interval: epoch, warmup: 5%}\n",
    "text that looks like numbers": "model: {name: mlp, args: {activation: 'relu'}}\n",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_loading_it_again_gives_the_same(name: str, write: Callable[..., Path]) -> None:
    base = GOOD if not CONFIGS[name].startswith("model") else GOOD.replace("model: mlp\n", "")
    config = load_config(write(base + CONFIGS[name]))
    clocks = dict.fromkeys(config.variants, CLOCK)
    if "batch" in clocks:
        clocks["batch"] = Clock(440, 44, 32)
        clocks["short"] = Clock(110, 22, 64)
    tree = resolved_tree(config, clocks)
    again = load_config(write(to_yaml(tree), "resolved.yaml"))
    assert list(again.variants) == list(config.variants)
    for variant, settings in config.variants.items():
        assert resolve_units(settings, clocks[variant]) == again.variants[variant]
    assert resolved_tree(again, clocks) == tree
    assert "ep" not in str(tree["train"])


def test_what_is_written(write: Callable[..., Path]) -> None:
    config = load_config(write(GOOD + CONFIGS["variants"]))
    clocks = dict.fromkeys(config.variants, CLOCK)
    clocks |= {"batch": Clock(440, 44, 32), "short": Clock(110, 22, 64)}
    tree = resolved_tree(config, clocks)
    assert tree["schedule"] == {"name": "cosine", "warmup": "22st", "min_lr": 1e-5}
    assert tree["train"] == {
        "duration": "220st", "eval_every": "22st", "accumulate": 1, "grad_clip": 1.0,
    }  # fmt: skip
    assert tree["compare"] == {
        "seeds": 3,
        "metric": "val_loss",
        "direction": None,
        "select": "final",
        "reference": "same",
        "target": None,
        "looks": [],
        "variants": {
            "same": {},
            "plain": {"schedule": {"name": "constant"}},
            "longer": {"schedule.warmup": "44st"},
            "other": {
                "schedule": {"name": "wsd", "warmup": "5st", "decay": "44st"},
                "train.grad_clip": None,
            },
            "adam": {
                "optimizer.name": "Adam",
                "optimizer.lr": 1e-5,
                "optimizer.args.betas": [0.5, 0.9],
            },
            "wide": {"model.args.hidden": [7], "model.args.activation": "gelu"},
            "tiny": {"optimizer.lr": 1.2345678901234567e-9},
            "short": {"train.duration": "110st", "train.eval_every": "11st"},
            "batch": {
                "precision": "fp64",
                "data.batch_size": 32,
                "schedule.warmup": "44st",
                "train.duration": "440st",
                "train.eval_every": "44st",
            },
            "groups": {"optimizer.groups": [{"match": "layers.0.*", "lr_scale": 10.0}]},
        },
    }


def test_every_default_is_written(load: Callable[..., Config]) -> None:
    config = load(GOOD)
    tree = resolved_tree(config, dict.fromkeys(config.variants, CLOCK))
    assert tree == {
        "name": "exp",
        "seed": 0,
        "device": "auto",
        "precision": "fp32",
        "engine": "auto",
        "executor": {"name": "local"},
        "model": {"name": "mlp", "args": {}},
        "data": {
            "name": "digits", "batch_size": 64, "val_fraction": 0.2, "split": None, "args": {}, "workers": 0,
            "in_memory": "auto",
        },
        "loss": {"name": "cross_entropy", "args": {}},
        "step": None,
        "eval_step": None,
        "log": [],
        "metrics": [],
        "optimizer": {"name": "SGD", "lr": 0.01, "args": {}, "groups": []},
        "schedule": {"name": "constant"},
        "train": {"duration": "220st", "eval_every": "22st", "accumulate": 1, "grad_clip": None},
        "compare": {
            "seeds": 1,
            "metric": "val_loss",
            "direction": None,
            "select": "final",
            "reference": "standard",
            "target": None, "looks": [],
            "variants": {
                "high": {"optimizer.lr": 0.1}, "standard": {}, "low": {"optimizer.lr": 0.001},
            },
        },
        "find_lr": {
            "min_lr": 1e-7, "max_lr": 10.0, "steps": 100, "seeds": 3, "mode": "exp",
            "stop_factor": 4.0, "rule": "auto", "part": None, "race": False, "budget": None,
        },
    }  # fmt: skip


def test_a_config_narrowed_to_itself_keeps_what_it_compares(load: Callable[..., Config]) -> None:
    config = load(GOOD + "compare: {variants: {a: {train.duration: 3ep}}}\n")
    alone = replace(
        config, variants={"range_test": config.experiment}, overrides={"range_test": {}}
    )
    tree = resolved_tree(alone, {"range_test": CLOCK})
    assert tree["compare"]["variants"] == {"a": {"train.duration": "3ep"}}
    assert tree["train"]["duration"] == "220st"
    assert "grid" not in tree["compare"]


def test_paths_of_built_in_data_start_at_the_config(write: Callable[..., Path]) -> None:
    text = GOOD.replace("data: digits", "data: {name: csv, args: {path: d/x.csv, target: y}}")
    config = load_config(write(text, "configs/exp.yaml"))
    expected = str(Path.cwd() / "configs" / "d/x.csv")
    assert config.experiment.data.args == {"path": expected, "target": "y"}
    tree = resolved_tree(config, dict.fromkeys(config.variants, CLOCK))
    assert tree["data"]["args"]["path"] == expected
    write("def load(path): ...\n", "mine.py")
    text = GOOD.replace("data: digits", "data: {name: 'mine:load', args: {path: d/x.csv}}")
    assert load_config(write(text, "e.yaml")).experiment.data.args == {"path": "d/x.csv"}


def test_an_absolute_path_and_a_variants_path(write: Callable[..., Path]) -> None:
    text = GOOD.replace("data: digits", "data: {name: csv, args: {path: /x.csv, target: y}}")
    text += "compare: {variants: {a: {data.args.path: z.csv}}}\n"
    config = load_config(write(text, "configs/exp.yaml"))
    assert config.experiment.data.args["path"] == str(Path("/x.csv"))
    assert config.variants["a"].data.args["path"] == str(Path.cwd() / "configs" / "z.csv")


def test_the_starter_is_valid_and_says_the_defaults(write: Callable[..., Path]) -> None:
    config = load_config(write(starter()))
    assert list(config.variants) == ["high", "standard", "low"]
    shown = _uncommented(starter())
    defaults = config.experiment.model_dump()
    for key in ("seed", "device", "precision", "engine", "find_lr"):
        assert shown[key] == pytest.approx(defaults[key])
    for section in ("data", "train"):
        assert shown[section] == defaults[section]
    assert shown["compare"]["metric"] == defaults["compare"]["metric"]


MINE = "def make():\n    return 1\n"


@pytest.mark.parametrize(
    ("data", "written", "options"),
    [
        ("digits", {"batch_size": 64, "val_fraction": 0.2}, (None, None)),
        ("{name: digits, batch_size: 8}", {"batch_size": 8, "val_fraction": 0.2}, (8, None)),
        ("mine:make", {}, (None, None)),  # a DataLoader has its own
        ("{name: mine:make, batch_size: 64}", {"batch_size": 64}, (64, None)),
        ("{name: mine:make, val_fraction: 0}", {"val_fraction": 0}, (None, 0)),
    ],
)
def test_how_own_data_is_batched_is_written_only_where_it_was(
    data: str, written: dict[str, float], options: tuple[object, ...], write: Callable[..., Path]
) -> None:
    write(MINE, "mine.py")
    variants = "compare: {variants: {same: {}, said: {data.batch_size: 4}}}\n"
    config = load_config(write(GOOD.replace("data: digits", f"data: {data}") + variants))
    found = config.variants["same"].data.options
    assert (found["batch_size"], found["val_fraction"]) == options
    assert resolve_units(config.experiment, CLOCK).data.options == (
        found if "mine" in data else {**found, **written}
    )
    tree = resolved_tree(config, dict.fromkeys(config.variants, CLOCK))
    assert {k: v for k, v in tree["data"].items() if k in ("batch_size", "val_fraction")} == written
    again = load_config(write(to_yaml(tree), "resolved.yaml"))
    assert again.variants["said"].data.options["batch_size"] == 4
    assert resolved_tree(again, dict.fromkeys(again.variants, CLOCK)) == tree


def _uncommented(text: str) -> dict[str, object]:
    """Return the starter with its commented keys switched on, but for alternatives."""
    lines = []
    for line in text.splitlines():
        body = line.lstrip()
        known = body.startswith("# ") and ":" in body and body[2:].split(":")[0].isidentifier()
        skipped = body.startswith(("# schedule", "# groups", "# parts", "# variants", "# grid"))
        lines.append(line.replace("# ", "", 1) if known and not skipped else line)
    value, _ = read_yaml("\n".join(lines), "starter")
    return value  # type: ignore[return-value]


def test_the_starter_has_every_key(write: Callable[..., Path]) -> None:
    from lrexp.config.schema import ExperimentConfig

    data = read_document(write(starter())).text
    for name, field in ExperimentConfig.model_fields.items():
        assert f"{name}:" in data
        for inner in getattr(field.annotation, "model_fields", {}):
            assert f"{inner}:" in data, f"{name}.{inner}"
