"""Faults made on purpose, one at a time: the default suite must go red for each of them.

    python tests/mutants.py               every mutant, first against the tests that should find it
    python tests/mutants.py swapped_seed  only this one

A copy of the package gets one fault, and the tests that stand beside it run; where these stay
green, the whole default suite does. The table at the end names the test that found each fault.
`tests/test_mutants.py` holds that every fault still fits the text of the package.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEEDED = ("lrexp", "tests", "configs", "pyproject.toml", "README.md", "CHANGELOG.md")


@dataclass(frozen=True)
class Mutant:
    """A fault in one place.

    Args:
        name: a word for the command line.
        file: inside lrexp/.
        old: stands there once.
        new: what the fault makes of it.
        tests: inside tests/: those that should find it, by folder or file.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str

    def apply(self, package: Path) -> None:
        """Put the fault into a copy of the package."""
        path = package / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.file} holds {self.old!r} {text.count(self.old)}x")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


MUTANTS = [
    Mutant(
        "warmup_off_by_one",
        "schedules/schedule.py",
        "return (step + 1) / warmup",
        "return step / warmup",
        "schedules",
    ),
    Mutant(
        "parts_off_by_one",
        "schedules/combine.py",
        "index = bisect_right(starts, step) - 1",
        "index = bisect_right(starts, step - 1) - 1 if step else 0",
        "schedules",
    ),
    Mutant(
        "ramp_misses_its_end",
        "analysis/stopping.py",
        "last = steps - 1",
        "last = steps",
        "analysis",
    ),
    Mutant(
        "nan_goes_on",
        "analysis/stopping.py",
        "if not math.isfinite(loss):\n            return state._replace(steps=steps",
        "if False:\n            return state._replace(steps=steps",
        "analysis",
    ),
    Mutant(
        "drift_the_wrong_way",
        "analysis/search.py",
        "weight, total = DRIFT_SD**-2, DRIFT * DRIFT_SD**-2",
        "weight, total = DRIFT_SD**-2, -DRIFT * DRIFT_SD**-2",
        "analysis test_race.py",
    ),
    Mutant(
        "holm_left_out",
        "analysis/statistics.py",
        "np.maximum.accumulate(factors * raw[order])",
        "np.maximum.accumulate(raw[order])",
        "analysis",
    ),
    Mutant(
        "divergence_flatters",
        "analysis/claims.py",
        "return 1.0 - len(finished) / len(judged), mean",
        "return 0.0, mean",
        "analysis",
    ),
    Mutant(
        "same_order_every_epoch",
        "workloads/seeds.py",
        'derive_seed(seed, "order", epoch)',
        'derive_seed(seed, "order")',
        "workloads",
    ),
    Mutant(
        "same_mask_every_step",
        "engine/rng.py",
        "generator.manual_seed(self._first + step)\n        if",
        "generator.manual_seed(self._first)\n        if",
        "engine/test_dropout.py engine/test_sequential.py engine/test_equality.py",
    ),
    Mutant(
        "swapped_seed",
        "engine/sequential.py",
        'seed_everything(derive_seed(task.trial.seed, "training"))',
        'seed_everything(derive_seed(0, "training"))',
        "engine/test_sequential.py engine/test_equality.py test_fairness.py",
    ),
    Mutant(
        "evaluated_in_training_mode",
        "engine/sequential.py",
        "    model.eval()\n",
        "",
        "engine/test_sequential.py engine/test_equality.py",
    ),
    Mutant(
        "adam_without_bias_correction",
        "engine/vectorized/update_rules.py",
        "    step = -lr / (1 - _power(beta1, t))\n    scale",
        "    step = -lr\n    scale",
        "engine/vectorized engine/test_equality.py",
    ),
    Mutant(
        "columns_mixed_up",
        "engine/vectorized/loop.py",
        "return [columns[row] for row in alive]",
        "return list(columns[: len(alive)])",
        "engine/vectorized",
    ),
    Mutant(
        "shared_weights",
        "runs/builder.py",
        "model = self._copied_model(settings, data, seed)",
        "model = self._initial_model(settings, data, seed)",
        "test_fairness.py test_python.py",
    ),
    Mutant(
        "callers_model_is_trained",
        "integrations/lr_finder.py",
        'model, optimizers = copy_of((self.model, self._optimizers), "model", NOT_COPIED)',
        "model, optimizers = self.model, self._optimizers",
        "test_python.py",
    ),
    Mutant(
        "rows_not_cut_on_resume",
        "runs/writer.py",
        "                os.truncate(path, sizes[name])\n",
        "",
        "runs test_resume.py durability/test_kills.py",
    ),
    Mutant(
        "lock_not_taken",
        "runs/lock.py",
        "if not _is_acquired(lease, path, _patience(path)):\n        raise _refused(path)",
        "_is_acquired(lease, path, _patience(path))",
        "runs",
    ),
    Mutant(
        "failed_is_done",
        "runs/checkpoint.py",
        'if outcome not in ("finished", "diverged"):',
        'if outcome not in ("finished", "diverged", "failed"):',
        "runs test_resume.py",
    ),
    Mutant(
        "best_is_worst",
        "runs/trial_files.py",
        "sign * value < sign * self.best[name]",
        "sign * value > sign * self.best[name]",
        "runs",
    ),
    Mutant(
        "closed_part_of_torch_is_open",
        "config/trust.py",
        "return _trusted(name, OPEN_PACKAGES) and not _trusted(name, _CLOSED)",
        "return _trusted(name, OPEN_PACKAGES)",
        "config",
    ),
    Mutant(
        "private_name_is_not_refused",
        "config/trust.py",
        'if w.startswith("_")]\n    if private:',
        'if w.startswith("_")]\n    if private and False:',
        "config",
    ),
    Mutant(
        "key_given_twice",
        "config/reader.py",
        "elif key_node.value in own:",
        "elif False:",
        "config",
    ),
    Mutant(
        "sees_the_future",
        "workloads/models.py",
        "scores = scores.masked_fill(self.future[:time, :time], -math.inf)",
        "scores = scores + 0.0",
        "workloads",
    ),
    Mutant(
        "dead_worker_not_tried_again",
        "runs/executor.py",
        "ATTEMPTS = 2",
        "ATTEMPTS = 1",
        "test_processes.py",
    ),
    Mutant(
        "second_signal_is_ignored",
        "runs/signals.py",
        "            raise KeyboardInterrupt\n        pause.requested = True",
        "            return\n        pause.requested = True",
        "durability test_resume.py test_processes.py test_commands.py",
    ),
    Mutant(
        "diverged_seed_in_the_band",
        "report/data/curves.py",
        'kept = [_training(trial) for trial in begun if outcome(trial) != "diverged"]',
        "kept = [_training(trial) for trial in begun]",
        "report",
    ),
    Mutant(
        "no_signal_is_success",
        "report/console.py",
        "NO_SIGNAL = 4",
        "NO_SIGNAL = 0",
        "test_commands.py",
    ),
]


def copied(folder: Path) -> Path:
    """Copy what tests need into a folder, and return it."""
    for name in NEEDED:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, folder / name)
    return folder


def first_failure(folder: Path, tests: Iterable[str] = ("-n2",)) -> str | None:
    """Return the first test that fails in a copy; None where all pass. By default all are run.

    Raises:
        RuntimeError: pytest could not run the tests; that finds no fault.
    """
    # test_mutants.py looks at the text of the package: it would find every mutant, and none.
    words = ["-x", "-q", "-p", "no:cacheprovider", "--ignore=tests/test_mutants.py", *tests]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+::\S.*?)(?: - |$)", done.stdout, re.MULTILINE)
    if failed is None:  # a file that cannot be collected has no test after its name
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return failed[1]


def killed_by(mutant: Mutant) -> str | None:
    """Return the test of the default suite that finds a fault, None where none does."""
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        mutant.apply(copy / "lrexp")
        near = [f"tests/{name}" for name in mutant.tests.split()]
        return first_failure(copy, near) or first_failure(copy)


def require_green(mutants: Iterable[Mutant]) -> None:
    """Require that the tests beside the mutants pass without a fault.

    Raises:
        RuntimeError: one fails.
    """
    near = dict.fromkeys(f"tests/{name}" for mutant in mutants for name in mutant.tests.split())
    with tempfile.TemporaryDirectory() as folder:
        if failed := first_failure(copied(Path(folder)), near):
            raise RuntimeError(f"{failed} fails without any fault; mend that first")


def main() -> None:
    """Try the mutants that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="of mutants; all by default")
    names = parser.parse_args().names
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    survivors = 0
    require_green(chosen)
    for mutant in chosen:
        found = killed_by(mutant)
        survivors += found is None
        print(f"| {mutant.name} | lrexp/{mutant.file} | {found or 'SURVIVED'} |", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} found")
    sys.exit(survivors > 0)


if __name__ == "__main__":
    main()
