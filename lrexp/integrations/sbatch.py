"""What sbatch takes from a config, and what Slurm says."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lrexp.errors import NOTHING, ConfigError, Problem, RunError, did_you_mean

MOST_JOBS = 1001  # of an array, by Slurm's own default
# Of sbatch; those that write files, run code or change what this module relies on are not among
# them: a config may be a stranger's.
OPTIONS = (
    "account", "begin", "clusters", "comment", "constraint", "cores-per-socket", "cpus-per-gpu",
    "deadline", "dependency", "exclude", "exclusive", "gres", "hint", "licenses", "mail-type",
    "mail-user", "mem-per-cpu", "mem-per-gpu", "nice", "nodelist", "oversubscribe", "prefer",
    "priority", "qos", "reservation", "switches", "threads-per-core", "tmp", "wckey",
)  # fmt: skip
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "REVOKED", "TIMEOUT",
}  # fmt: skip
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_MEMORY = re.compile(r"\d+[KMGT]?B?", re.IGNORECASE)
_WORDS = {  # of sbatch's refusal -> the key that it is about
    "partition": "partition", "time limit": "time", "memory": "memory", "gres": "gpus",
    "gpu": "gpus", "account": "options.account", "qos": "options.qos", "cpu": "cpus",
    "array": "array", "constraint": "options.constraint", "feature": "options.constraint",
}  # fmt: skip


def require(options: Mapping[str, Any]) -> None:
    """Refuse what cannot work, before anything is written.

    Raises:
        ConfigError: submitit or sbatch is missing, or an option has no meaning.
    """
    try:
        import submitit  # noqa: F401
    except ImportError:
        what, remedy = "needs submitit", "Install it: pip install 'lrexp[slurm]'."
        raise ConfigError.single("name", what, "slurm", remedy) from None
    problems = list(_wrong(options))
    if not options.get("local") and shutil.which("sbatch") is None:
        what = "finds no sbatch on PATH"
        remedy = "Run it where jobs are submitted, or try it here with executor.local=true."
        problems.append(Problem("name", what, "slurm", remedy))
    if problems:
        raise ConfigError(problems)


def _wrong(options: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with options that have their types.

    What is no single line would be one of sbatch's script, which runs it.
    """
    more = options.get("options") or {}
    for name in [name for name in more if name not in OPTIONS]:
        known = did_you_mean(name, OPTIONS) or f"There are {', '.join(OPTIONS)}."
        yield Problem(f"options.{name}", "is no option of sbatch that can be set here", name, known)
    texts = {"partition": options.get("partition"), **{f"options.{k}": v for k, v in more.items()}}
    for key, value in texts.items():
        if isinstance(value, str) and not (value.isprintable() and value):
            yield Problem(key, "must be one line of text", value, "Give a value of sbatch's.")
    time, memory = options.get("time"), options.get("memory")
    if time is not None and not (_TIME.fullmatch(str(time)) and minutes(time)):
        yield Problem("time", "is no time limit", time, "Give minutes, or as 2-12:00:00 for days.")
    if memory is not None and not _MEMORY.fullmatch(memory):
        yield Problem("memory", "is no amount of memory", memory, "Give one as 16G or 500M.")


def minutes(time: int | str) -> int:
    """Return the minutes of a time limit as sbatch reads it, rounded up.

    Example:
        >>> [minutes(time) for time in (90, "1:30", "2:00:00", "1-12", "1-12:30:00")]
        [90, 2, 120, 2160, 2190]
    """
    match = _TIME.fullmatch(str(time))
    if match is None:
        return 0
    days, *rest = match.groups()
    parts = [int(part) for part in rest if part is not None]
    if days is not None or len(parts) == 3:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    else:
        hours, (minutes, seconds) = 0, (*parts, 0)[:2]
    return math.ceil(((int(days or 0) * 24 + hours) * 60 + minutes) + seconds / 60)


def most_jobs() -> int:
    """Return how many jobs an array may have."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", asked(["scontrol", "show", "config"]).stdout)
    return max(1, int(found[1])) if found else MOST_JOBS


def asked(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of Slurm's; one that is missing has failed."""
    try:
        return subprocess.run(
            words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        return subprocess.CompletedProcess(words, 1, "", str(error))


def refusal(error: Exception) -> ConfigError | RunError:
    """Return what sbatch said, with the key that it is about."""
    said = [line.strip() for line in re.findall(r"sbatch: error: (.*)", str(error))]
    text = "; ".join(dict.fromkeys(said)) or f"{type(error).__name__}: {error}"
    key = next((key for word, key in _WORDS.items() if word in text.lower()), None)
    if key is None:
        return RunError(f"Slurm takes no jobs. {text.rstrip('.')}.")
    what, remedy = f"is refused by sbatch: {text.rstrip('.')}", "sinfo shows what there is."
    return ConfigError.single(f"executor.{key}", what, NOTHING, remedy)
