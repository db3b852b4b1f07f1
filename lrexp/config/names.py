"""What the names of an experiment stand for: looked up by kind, or followed as import paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrexp.config.imports import AnyCallable, import_callable
from lrexp.config.lookup import LOOK_UP, Kind
from lrexp.config.schema import ExperimentConfig
from lrexp.errors import ConfigError, user_error

IN_PYTHON = "(Python object)"  # the name of a section that was given as an object


def resolve(
    kind: Kind, name: str, *, directories: Sequence[Path], trust: Sequence[str] = ()
) -> AnyCallable:
    """Return the callable that a name stands for.

    Args:
        kind: which section the name is from; `function` takes import paths only.
        name: a built-in name, one of torch's or torchvision's, or `package.module:attribute`.
        directories: folders whose modules are the user's own, in order.
        trust: packages that import paths may reach besides.

    Raises:
        ConfigError: with key "", when the name is unknown or refused.
        UserCodeError: the user's module raised while it was imported.

    Example:
        >>> resolve("optimizer", "AdamW", directories=[])
        <class 'torch.optim.adamw.AdamW'>
    """
    if ":" in name or kind == "function":
        found = import_callable(name, directories=directories, trust=trust)
        return _as_loss(found, name) if kind == "loss" else found
    if name == IN_PYTHON:
        what = "was given as a Python object, which no file can hold"
        raise ConfigError.single("", what, name, f"Give it in Python again: {kind}=...")
    return LOOK_UP[kind](name)


@dataclass(frozen=True)
class Names:
    """The callables behind an experiment's names.

    Args:
        directories: where the user's own modules lie: beside the config, the working directory.
        trust: packages that import paths may reach besides.
    """

    directories: tuple[Path, ...]
    trust: tuple[str, ...] = ()

    def resolve(self, kind: Kind, name: str) -> AnyCallable:
        """Return the callable of a name; see `resolve`."""
        return resolve(kind, name, directories=self.directories, trust=self.trust)

    def model(self, settings: ExperimentConfig) -> AnyCallable:
        """Return the callable that makes the model."""
        return self.resolve("model", settings.model.name)

    def data(self, settings: ExperimentConfig) -> AnyCallable:
        """Return the callable that loads the data."""
        return self.resolve("data", settings.data.name)

    def loss(self, settings: ExperimentConfig) -> AnyCallable:
        """Return the loss, a function of (output, target)."""
        return self.resolve("loss", settings.loss)

    def optimizer(self, settings: ExperimentConfig) -> Any:
        """Return the optimizer's class."""
        return self.resolve("optimizer", settings.optimizer.name)

    def schedule(self, settings: ExperimentConfig) -> str | AnyCallable:
        """Return the schedule's name, or the callable that its import path leads to."""
        name = settings.schedule.name
        return self.resolve("schedule", name) if ":" in name else name

    def schedule_params(self, settings: ExperimentConfig) -> dict[str, Any]:
        """Return the schedule's parameters, import paths in them replaced by what they name."""
        return self.with_callables(settings.schedule.params)

    def with_callables(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return a schedule's parameters with import paths replaced by callables.

        These are `function` (of `lambda`) and the names of schedules in `parts`.

        Raises:
            ConfigError: keys are relative to the parameters.
        """
        resolved = dict(params)
        if isinstance(params.get("function"), str):
            resolved["function"] = self._under("function", "function", params["function"])
        parts = params.get("parts")
        if isinstance(parts, list):
            resolved["parts"] = [self._part(part, f"parts[{i}]") for i, part in enumerate(parts)]
        return resolved

    def _part(self, part: Any, key: str) -> Any:
        """Return one of the parts of a combined schedule."""
        if not isinstance(part, Mapping) or "schedule" not in part:
            return part
        inner = part["schedule"]
        inner = {"name": inner} if isinstance(inner, str) else inner
        if not isinstance(inner, Mapping):
            return part
        try:
            made = self.with_callables(inner)
            if isinstance(inner.get("name"), str) and ":" in inner["name"]:
                made["name"] = self._under("name", "schedule", inner["name"])
        except ConfigError as error:
            raise error.under(f"{key}.schedule") from None
        return {**part, "schedule": made}

    def _under(self, key: str, kind: Kind, name: str) -> AnyCallable:
        try:
            return self.resolve(kind, name)
        except ConfigError as error:
            raise error.under(key) from None


def _as_loss(found: AnyCallable, path: str) -> AnyCallable:
    """Return a class's instance, made without arguments: `torch.nn:MSELoss` is a class."""
    if not isinstance(found, type):
        return found
    try:
        made = found()
    except Exception as error:
        raise user_error(error, f"making the loss {path}") from error
    if not callable(made):
        what = "is a class whose instances cannot be called"
        raise ConfigError.single("", what, path, "Name a function of (output, target).")
    loss: AnyCallable = made
    return loss
