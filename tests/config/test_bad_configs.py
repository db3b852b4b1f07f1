"""What is wrong with a config: its key, its line, and words of the message; one row per mistake.

Each row changes a good config: lines of the change replace the lines that start with the same key,
or are added at the end. `@N` rows are whole files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lrexp.config.load import load_config
from lrexp.errors import ConfigError

BASE = """\
name: base
model: {name: mlp, args: {hidden: [4]}}
data: {name: digits, batch_size: 64}
loss: cross_entropy
optimizer: {name: SGD, lr: 0.1}
schedule: constant
train: {duration: 1ep}
compare: {variants: {a: {}}}
find_lr: {steps: 50}
"""

# change | key | line | part of what is said
TABLE: list[tuple[str, str, int, str]] = [
    # keys
    ("modle: {name: mlp}", "modle", 10, "is not a known key (got {'name': 'mlp'}). Did you mean 'model'?"),
    ("train: {durration: 1ep}", "train.durration", 7, "Did you mean 'duration'?"),
    ("lr: 0.1", "lr", 10, "belongs in its section: optimizer.lr"),
    ("batch_size: 8", "batch_size", 10, "data.batch_size"),
    ("epochs: 3", "epochs", 10, "is not a known key (got 3). Known: compare,"),
    ("1: x", "1", 10, "is not a known key"),
    ("name: again\nname: twice", "name", 10, "is given twice, first in line 1"),
    ("train: {duration: 1ep, duration: 2ep}", "train.duration", 7, "is given twice"),
    ("optimizer: {name: SGD, lr: 0.1, momentum: 0.9}", "optimizer.momentum", 5, "is not a known key (got 0.9)"),
    # numbers
    ("optimizer: {name: SGD, lr: true}", "optimizer.lr", 5, "must be a number (got true). E.g. `lr: 0.01`."),
    ("optimizer: {name: SGD, lr: yes}", "optimizer.lr", 5, "must be a number (got 'yes')"),
    ("optimizer: {name: SGD, lr: '0.1'}", "optimizer.lr", 5, "must be a number (got '0.1'). Remove the quotes: 0.1."),
    ("optimizer: {name: SGD, lr: 0,1}", "optimizer.1", 5, "is not a known key"),
    ("optimizer: {name: SGD, lr: .nan}", "optimizer.lr", 5, "must be a finite number (got nan)"),
    ("optimizer: {name: SGD, lr: nan}", "optimizer.lr", 5, "must be a number (got 'nan')"),
    ("optimizer: {name: SGD, lr: .inf}", "optimizer.lr", 5, "must be a finite number (got inf)"),
    ("optimizer: {name: SGD, lr: 1e999}", "optimizer.lr", 5, "must be a finite number (got inf)"),
    ("optimizer: {name: SGD, lr: 0}", "optimizer.lr", 5, "must be greater than 0 (got 0)"),
    ("optimizer: {name: SGD, lr: -1e-3}", "optimizer.lr", 5, "must be greater than 0 (got -0.001)"),
    ("optimizer: {name: SGD, lr: null}", "optimizer.lr", 5, "must be a number (got null)"),
    ("optimizer: {name: SGD, lr: [1]}", "optimizer.lr", 5, "must be a number (got [1])"),
    ("optimizer: {name: SGD}", "optimizer.lr", 5, "is required. Add it, e.g. `lr: 0.01`."),
    ("optimizer: {lr: 1}", "optimizer.name", 5, "is required. Add it, e.g. `name: SGD`."),
    ("seed: 1.5", "seed", 10, "must be a whole number (got 1.5)"),
    ("seed: 3.0", "seed", 10, "must be a whole number (got 3.0). Write 3."),
    ("seed: -1", "seed", 10, "must be at least 0 (got -1)"),
    ("seed: 0777", "seed", 10, "must be a whole number (got '0777')"),
    ("seed: 1_000", "seed", 10, "must be a whole number (got '1_000')"),
    ("seed: 99999999999999999999", "seed", 10, "must be at most 4294967295"),
    ("data: {name: digits, batch_size: 0}", "data.batch_size", 3, "must be at least 1 (got 0)"),
    ("data: {name: digits, batch_size: true}", "data.batch_size", 3, "must be a whole number (got true)"),
    ("data: {name: digits, batch_size: '5'}", "data.batch_size", 3, "Remove the quotes: 5."),
    ("data: {name: digits, val_fraction: 1}", "data.val_fraction", 3, "must be less than 1 (got 1)"),
    ("data: {name: digits, val_fraction: -0.1}", "data.val_fraction", 3, "must be at least 0"),
    ("data: {name: digits, workers: -1}", "data.workers", 3, "must be at least 0"),
    ("data: {name: digits, in_memory: 1}", "data.in_memory", 3, "must be auto, true or false (got 1)"),
    ("find_lr: {steps: 1}", "find_lr.steps", 9, "must be at least 2 (got 1)"),
    ("find_lr: {stop_factor: 1}", "find_lr.stop_factor", 9, "must be greater than 1 (got 1)"),
    ("find_lr: {min_lr: 1, max_lr: 0.5}", "find_lr.max_lr", 9, "must be greater than find_lr.min_lr, 1 (got 0.5)"),
    ("find_lr: {min_lr: 11}", "find_lr.max_lr", 9, "must be greater than find_lr.min_lr, 11."),
    ("train: {accumulate: 0}", "train.accumulate", 7, "must be at least 1"),
    ("train: {grad_clip: 0}", "train.grad_clip", 7, "must be greater than 0"),
    ("compare: {seeds: 0}", "compare.seeds", 8, "must be at least 1"),
    # text, choices, shapes
    ("loss: {name: cross_entropy, label_smoothing: 0.1}", "loss.label_smoothing", 4, "under `loss.args.label_smoothing`"),
    ("optimizer: {name: SGD, lr: 1, nesterov: true}", "optimizer.nesterov", 5, "under `optimizer.args.nesterov`"),
    ("loss: 5", "loss", 4, "must be a mapping of keys to values (got 5). E.g. `loss: cross_entropy`."),
    ("loss:", "loss", 4, "is required. Add it, e.g. `cross_entropy`."),
    ("loss: ''", "loss.name", 4, "must not be empty"),
    ("model: [mlp]", "model", 2, "must be a mapping of keys to values (got ['mlp'])"),
    ("model: 7", "model", 2, "must be a mapping"),
    ("model: {name: 5}", "model.name", 2, "must be text (got 5)"),
    ("model: {name: mlp, args: [1]}", "model.args", 2, "must be a mapping"),
    ("train: [1ep]", "train", 7, "must be a mapping"),
    ("compare: {variants: [a]}", "compare.variants", 8, "must be a mapping"),
    ("compare: {variants: {a: 5}}", "compare.variants.a", 8, "must be a mapping"),
    ("name: a/b", "name", 1, "may only hold"),
    ("name: ''", "name", 1, "must have 1 to 64 characters"),
    ("device: gpu", "device", 10, "is no device (got 'gpu'). Write auto, cpu, cuda, cuda:N or mps."),
    ("precision: fp16", "precision", 10, "must be one of fp32, fp64, bf16 (got 'fp16')"),
    ("precision: bf_16", "precision", 10, "Did you mean 'bf16'?"),
    ("engine: warp", "engine", 10, "must be one of auto, sequential"),
    ("compare: {metric: valloss}", "compare.metric", 8, "Did you mean 'val_loss'?"),
    ("compare: {reference: standrad}", "compare.reference", 8, "is no variant (got 'standrad'). Did you mean 'standard'?"),
    ("compare: {variants: {a: {}}, reference: standard}", "compare.reference", 8, "Known: a, best."),
    ("compare: {reference: 5}", "compare.reference", 8, "must be text"),
    ("compare: {target: .inf}", "compare.target", 8, "must be"),
    ("compare: {target: low}", "compare.target", 8, "must be a number"),
    ("compare: {variants: {a: {compare.reference: a}}}", "compare.variants.a.compare.reference", 8, "cannot differ"),
    ("find_lr: {rule: steepst}", "find_lr.rule", 9, "Did you mean 'steepest'?"),
    ("find_lr: {mode: [exp]}", "find_lr.mode", 9, "must be one of exp, linear"),
    ("optimizer: {name: SGD, lr: 1, groups: {match: x}}", "optimizer.groups", 5, "must be a list"),
    ("optimizer: {name: SGD, lr: 1, groups: [{match: '('}]}", "optimizer.groups[0].match", 5, "regular expression"),
    ("optimizer: {name: SGD, lr: 1, groups: [{match: x, lr_scale: 0}]}", "optimizer.groups[0].lr_scale", 5, "must be greater than 0"),
    ("optimizer: {name: SGD, lr: 1, groups: [{mach: x, lr_scale: 1, match: x}]}", "optimizer.groups[0].mach", 5,
     "Did you mean 'match'?"),
    # durations
    ("train: {duration: 10}\ntrain: {duration: 10 epochs}", "train", 10, "is given twice"),
    ("train: {duration: 10epochs}", "train.duration", 7, "has the unknown unit 'epochs'"),
    ("train: {duration: ten}", "train.duration", 7, "is no duration (got 'ten')"),
    ("train: {duration: '500'}", "train.duration", 7, "Write 500 without quotes, or 500st."),
    ("train: {duration: 1.5}", "train.duration", 7, "must be a whole number of steps or text with a unit"),
    ("train: {duration: true}", "train.duration", 7, "must be a whole number of steps or text"),
    ("train: {duration: -1}", "train.duration", 7, "must not be negative"),
    ("train: {duration: 0}", "train.duration", 7, "must be more than 0"),
    ("train: {duration: 0ep}", "train.duration", 7, "must be more than 0"),
    ("train: {duration: 50%}", "train.duration", 7, "cannot be a share of itself"),
    ("train: {eval_every: 10:30}", "train.eval_every", 7, "is no duration (got '10:30')"),
    # names and arguments
    ("model: mpl", "model.name", 2, "Did you mean 'mlp'?"),
    ("model: resnet17", "model.name", 2, "resnet1"),
    ("data: digts", "data.name", 3, "Did you mean 'digits'?"),
    ("data: FashionMNST", "data.name", 3, "Did you mean 'FashionMNIST'?"),
    ("loss: MSELoss", "loss", 4, "Did you mean 'mse_loss'?"),
    ("loss: mse", "loss", 4, "Did you mean 'mse_loss'?"),
    ("optimizer: {name: adamw, lr: 1}", "optimizer.name", 5, "Did you mean 'AdamW'?"),
    ("optimizer: {name: Optimizer, lr: 1}", "optimizer.name", 5, "is no optimizer of torch.optim"),
    ("optimizer: {name: LBFGS, lr: 1}", "optimizer.name", 5, "closure"),
    ("schedule: cosin", "schedule.name", 6, "Did you mean 'cosine'?"),
    ("schedule: steplr", "schedule.name", 6, "Did you mean 'StepLR'?"),
    ("model: {name: mlp, args: {hiden: [3]}}", "model.args.hiden", 2, "Did you mean 'hidden'?"),
    ("model: {name: mlp, args: {hidden: big}}", "model.args.hidden", 2, "must be a list"),
    ("model: {name: mlp, args: {hidden: [$num_clases]}}", "model.args.hidden", 2, "Did you mean '$num_classes'?"),
    ("optimizer: {name: SGD, lr: 1, args: {momentun: 1}}", "optimizer.args.momentun", 5, "Did you mean 'momentum'?"),
    ("optimizer: {name: SGD, lr: 1, args: {lr: 1}}", "optimizer.args.lr", 5, "is given to SGD already, by optimizer.lr"),
    ("optimizer: {name: SGD, lr: 1, args: {params: 1}}", "optimizer.args.params", 5, "by the model"),
    ("optimizer: {name: SGD, lr: 1, args: {momentum: '0.9'}}", "optimizer.args.momentum", 5, "must be a number (got '0.9')"),
    ("optimizer: {name: SGD, lr: 1, args: {nesterov: no}}", "optimizer.args.nesterov", 5, "must be true or false (got 'no')"),
    ("optimizer: {name: SGD, lr: 1, args: {momentum: -1}}", "optimizer.args", 5, "is refused by SGD: Invalid momentum"),
    ("optimizer: {name: SGD, lr: 1, args: {momentum: .nan}}", "optimizer.args.momentum", 5, "must be a finite number"),
    ("optimizer: {name: Adam, lr: 1, args: {betas: [0.9]}}", "optimizer.args.betas", 5, "must be a list of 2"),
    ("schedule: {name: cosine, warmpu: 5%}", "schedule.warmpu", 6, "Did you mean 'warmup'?"),
    ("schedule: {name: cosine, min_lr: low}", "schedule.min_lr", 6, "(got 'low')"),
    ("schedule: {name: StepLR, args: {step_sise: 1}}", "schedule.args.step_sise", 6, "step_size"),
    ("schedule: {name: StepLR}", "schedule.args.step_size", 6, "is needed by StepLR"),
    ("schedule: {name: lambda, function: 5}", "schedule.function", 6, "function"),
    ("schedule: {name: lambda, function: fast}", "schedule.function", 6, "is no import path"),
    ("schedule: {name: lambda, function: 'os:system'}", "schedule.function", 6, "standard library"),
    ("schedule: {name: combined, parts: [{start: 0, end: 5, schedule: {name: 'os:system'}}]}",
     "schedule.parts[0].schedule.name", 6, "standard library"),
    # variants
    ("compare: {variants: {}}", "compare.variants", 8, "names no variant"),
    ("compare: {variants: {untrained: {}}}", "compare.variants.untrained", 8, "calls its own trials"),
    ("compare: {variants: {range_test: {}}}", "compare.variants.range_test", 8, "its own trials"),
    ("compare: {variants: {race-2-lr-1: {}}}", "compare.variants.race-2-lr-1", 8, "its own trials"),
    ("compare: {variants: {a: {}}, grid: {optimizer.lr: [1]}}", "compare.grid", 8, "cannot stand beside"),
    ("compare: {variants: {../up: {}}}", "compare.variants.../up", 8, "must start with a letter or digit"),
    ("compare: {variants: {NUL: {}}}", "compare.variants.NUL", 8, "device on Windows"),
    ("compare: {variants: {a: {}, A: {}}}", "compare.variants.A", 8, "but for capitals"),
    ("compare: {variants: {a: {seed: 3}}}", "compare.variants.a.seed", 8, "must share their seeds"),
    ("compare: {variants: {a: {device: cpu}}}", "compare.variants.a.device", 8, "share the device"),
    ("compare: {variants: {a: {name: x}}}", "compare.variants.a.name", 8, "cannot differ between variants"),
    ("compare: {variants: {a: {compare.seeds: 2}}}", "compare.variants.a.compare.seeds", 8, "cannot differ"),
    ("compare: {variants: {a: {find_lr: {}}}}", "compare.variants.a.find_lr", 8, "cannot differ"),
    ("compare: {variants: {a: {optimizer.lrr: 1}}}", "compare.variants.a.optimizer.lrr", 8, "Did you mean 'lr'?"),
    ("compare: {variants: {a: {optimiser.lr: 1}}}", "compare.variants.a.optimiser.lr", 8, "Did you mean 'optimizer'?"),
    ("compare: {variants: {a: {optimizer.: 1}}}", "compare.variants.a.optimizer.", 8, "is no dotted key"),
    ("compare: {variants: {a: {optimizer.lr.x: 1}}}", "compare.variants.a.optimizer.lr.x", 8, "is no mapping (got 0.1)"),
    ("compare: {variants: {a: {optimizer.lr: true}}}", "compare.variants.a.optimizer.lr", 8, "must be a number (got true)"),
    ("compare: {variants: {a: {optimizer: {lr: 1}}}}", "compare.variants.a.optimizer.name", 8,
     "A whole section is replaced here; to change one key, write `optimizer.lr: ...`."),
    ("compare: {variants: {a: {schedule: csine}}}", "compare.variants.a.schedule.name", 8, "Did you mean 'cosine'?"),
    ("compare: {variants: {a: {schedule: {name: linear, wrmup: 1}}}}", "compare.variants.a.schedule.wrmup", 8, "warmup"),
    ("compare: {variants: {a: {optimizer.args: {x: 1}}}}", "compare.variants.a.optimizer.args.x", 8, "is not a parameter of SGD"),
    ("compare: {variants: {a: {optimizer.args.momentum: -1}}}", "compare.variants.a.optimizer.args.momentum", 8,
     "is refused by SGD"),
    ("optimizer: {name: SGD, lr: 1, args: {momentum: 1}}\ncompare: {variants: {a: {optimizer.name: Adam}}}",
     "compare.variants.a.optimizer.args.momentum", 8, "is not a parameter of Adam, in variant 'a'"),
    ("compare: {grid: {}}", "compare.grid", 8, "is empty"),
    ("compare: {grid: {optimizer.lr: 1}}", "compare.grid.optimizer.lr", 8, "must be a list (got 1)"),
    ("compare: {grid: {optimizer.lr: []}}", "compare.grid.optimizer.lr", 8, "is an empty list"),
    ("compare: {grid: {optimizer.lr: [1, 1.0]}}", "compare.grid.optimizer.lr[1]", 8, "is given twice"),
    ("compare: {grid: {optimizer.lr: [1, -1]}}", "compare.grid.optimizer.lr[1]", 8, "must be greater than 0 (got -1)"),
    ("compare: {grid: {optimizer.lrr: [1, 2]}}", "compare.grid.optimizer.lrr", 8, "Did you mean 'lr'?"),
    ("compare: {grid: {seed: [1, 2]}}", "compare.grid.seed", 8, "cannot differ"),
    (f"compare: {{grid: {{optimizer.lr: [{', '.join(map(str, range(1, 40)))}],"
     f" train.accumulate: [{', '.join(map(str, range(1, 40)))}]}}}}", "compare.grid", 8, "1521 combinations"),
]  # fmt: skip

# whole files
FILES: list[tuple[bytes, str, int | None, str]] = [
    (b"", "", 1, "is empty. `lrexp init`"),
    (b"# nothing\n\n", "", 1, "is empty"),
    (b"- a\n", "", 1, "must be a mapping of keys to values (got ['a'])"),
    (b"word", "", 1, "must be a mapping of keys to values (got 'word')"),
    (b"name: x\n\tmodel: y\n", "", 2, "a tab stands where YAML wants spaces. Use spaces."),
    (b"name: a: b\n", "", 1, "a second ': ' in the line"),
    (b"a:\n    b: 1\n  c: 2\n", "", 3, "indentation"),
    (b"a: [1, 2\nb: 3\n", "", 2, "a bracket is not closed"),
    (b"a: 'x\n", "", 2, "a quote is not closed"),
    (b"a: 1\nword\nb: 2", "", 3, "a key has no ': ' after it"),
    (b"a: @x", "", 1, "an unquoted text cannot start with this character"),
    (b"a: *x", "", 1, "has no anchor"),
    (b"a: 1\n---\nb: 2\n", "", 2, "several documents"),
    (b"name: caf\xe9\n", "", 1, "is not UTF-8 text"),
    ("name: x".encode("utf-16"), "", 1, "is not UTF-8 text"),
    (b"a: 1\nname: a\x00b\n", "", 2, "control character U+0000"),
    (b"a: !!python/name:os.system\n", "", 1, "tags could run code and are refused"),
    (b"a: " + b"x" * 1_000_001, "", None, "is larger than 1000000 bytes"),
    (b"seed: 1\n", "model", 1, "is required. Add it, e.g. `model: mlp`."),
    (b"seed: 1\n", "optimizer", 1, "is required. Add it, e.g. `optimizer: {name: SGD, lr: 0.01}`."),
]


def changed(change: str) -> str:
    lines = BASE.splitlines()
    keys = [line.split(":")[0] for line in lines]
    used: set[str] = set()
    for new in change.splitlines():
        key = new.split(":")[0]
        repeated = key in used or (key == "name" and new == "name: again")
        if key in keys and not repeated:
            lines[keys.index(key)] = new
        else:
            lines.append(new)
        used.add(key)
    return "\n".join(lines) + "\n"


def problems_of(path: Path) -> dict[tuple[str, str], str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return {(p.place, p.key): str(p) for p in caught.value.problems}


def test_the_base_is_good(write: Callable[..., Path]) -> None:
    assert list(load_config(write(BASE)).variants) == ["a"]


@pytest.mark.parametrize(("change", "key", "line", "said"), TABLE)
def test_a_mistake_is_explained(
    change: str, key: str, line: int, said: str, write: Callable[..., Path]
) -> None:
    found = problems_of(write(changed(change)))
    assert (f"exp.yaml:{line}", key) in found, found
    assert said in found[f"exp.yaml:{line}", key]


@pytest.mark.parametrize(("raw", "key", "line", "said"), FILES)
def test_a_bad_file_is_explained(
    raw: bytes, key: str, line: int | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "exp.yaml"
    path.write_bytes(raw)
    found = problems_of(path)
    place = str(path) if line is None else f"{path}:{line}"
    assert (place, key) in found, found
    assert said in found[place, key]


def test_no_word_of_the_schema_library_is_shown(write: Callable[..., Path]) -> None:
    for change, *_ in TABLE:
        text = "\n".join(problems_of(write(changed(change))).values()).lower()
        for word in ("pydantic", "input should", "validation error", "extra inputs", "traceback"):
            assert word not in text


def test_all_problems_are_reported_at_once_in_the_order_of_the_file(
    write: Callable[..., Path],
) -> None:
    text = """\
    find_lr: {steps: 0}
    compare: {variants: {a: {optimizer.lr: -1}}}
    schedule: {name: cosine, warmpu: 1}
    optimizer: {name: SDG, lr: true}
    data: {name: digts, batch_size: 1.5}
    model: {name: mlp, args: {hiden: 3}}
    nmae: x
    """
    with pytest.raises(ConfigError) as caught:
        load_config(write(text))
    found = [(p.place, p.key) for p in caught.value.problems]
    assert found == [
        ("exp.yaml:1", "loss"),
        ("exp.yaml:1", "find_lr.steps"),
        ("exp.yaml:2", "compare.variants.a.optimizer.lr"),
        ("exp.yaml:3", "schedule.warmpu"),
        ("exp.yaml:4", "optimizer.lr"),
        ("exp.yaml:4", "optimizer.name"),
        ("exp.yaml:5", "data.batch_size"),
        ("exp.yaml:5", "data.name"),
        ("exp.yaml:6", "model.args.hiden"),
        ("exp.yaml:7", "nmae"),
    ]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("exq.yaml", "exq.yaml: does not exist. Did you mean 'exp.yaml'?"),
        ("none/exp.yaml", "none/exp.yaml: does not exist. Write one with `lrexp init`."),
        ("folder", "folder: is a directory, not a file. Give a YAML file."),
        ("nul\0", "cannot be read"),
        ("x" * 300, "cannot be read: File name too long"),
    ],
)
def test_a_file_that_cannot_be_read(path: str, said: str, write: Callable[..., Path]) -> None:
    write(BASE)
    Path("folder").mkdir()
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert said in str(caught.value)
