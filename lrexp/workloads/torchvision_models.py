"""torchvision's classification models by name, with as many outputs as the data has classes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import nn

from lrexp.errors import ConfigError, Problem, RunError
from lrexp.schedules.signatures import Count, checked, one_of, require
from lrexp.workloads.torchvision_data import torchvision_module

# With auxiliary heads, which a single loss cannot use; and with a deprecated default of their
# initialisation, that warns.
_OLD = {"googlenet", "inception_v3"}


def torchvision_model(name: str) -> TorchvisionModel | None:
    """Return the maker of a torchvision classification model, or None if there is none.

    Example:
        >>> torchvision_model("resnet18")(num_classes=10).fc.out_features
        10
    """
    models = torchvision_module("models", "model.name")
    if name not in models.list_models(module=models):
        return None
    return TorchvisionModel(name, models.get_model_builder(name))


@dataclass(frozen=True)
class TorchvisionModel:
    """A torchvision model by name.

    Called with `num_classes`, and if wanted `weights` (a name such as DEFAULT) and the model's
    own arguments. With weights the last layer is made anew where the number of classes differs.
    """

    name: str
    builder: Callable[..., nn.Module]

    @checked("model.args")
    def __call__(
        self, num_classes: Count, weights: str | None = None, **arguments: Any
    ) -> nn.Module:
        """Return the model.

        Raises:
            ConfigError: for a wrong argument.
            RunError: if the weights are not on disk and cannot be downloaded.
        """
        if weights is None:
            old = {"aux_logits": False, "init_weights": True} if self.name in _OLD else {}
            return self._built({"num_classes": num_classes, **old, **arguments})
        entry = self._weights(weights)
        model = self._built({"weights": entry, **arguments})
        if self.name in _OLD:
            _remove_auxiliary_heads(model)
        _replace_head(model, len(entry.meta["categories"]), num_classes)
        return model

    @property
    def __signature__(self) -> inspect.Signature:
        """What a config may write under `model.args`, and what is filled in."""
        names = ["num_classes", *(["image_size"] if self.name.startswith("vit_") else [])]
        kind = inspect.Parameter.KEYWORD_ONLY
        return inspect.Signature(
            [
                *(inspect.Parameter(name, kind, annotation=Count) for name in names),
                inspect.Parameter("weights", kind, default=None, annotation=str | None),
                inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD),
            ]
        )

    def misfit(self, in_channels: int | None) -> Problem | None:
        """Return the problem with data that is no colour images, or None."""
        if in_channels == 3:
            return None
        found = "none" if in_channels is None else f"{in_channels} channel(s)"
        what = f"reads images with 3 channels; the data has {found}"
        remedy = "Use the model cnn or mlp, or data of colour images."
        return Problem("model.name", what, self.name, remedy)

    def _weights(self, name: object) -> Any:
        models = torchvision_module("models", "model.name")
        known = models.get_model_weights(self.name).__members__
        require(one_of("model.args.weights", name, known))
        return known[str(name)]

    def _built(self, arguments: dict[str, Any]) -> nn.Module:
        try:
            with redirect_stdout(sys.stderr):  # torch.hub may print the address there
                return self.builder(**arguments)
        except (URLError, OSError) as error:
            raise self._no_download(arguments["weights"], error) from error
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            if "weights" in arguments and "hash" in str(error):  # torch.hub got another file
                raise self._no_download(arguments["weights"], error) from error
            what = f"do not fit {self.name}: {' '.join(str(error).split())}"
            raise ConfigError.single("model.args", what, arguments, "Correct them.") from error

    def _no_download(self, weights: Any, error: Exception) -> RunError:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        return RunError(
            f"model.args.weights: {weights} of {self.name} could not be downloaded: {error}. "
            f"Check the network, or put {weights.url} into {folder}."
        )


def _remove_auxiliary_heads(model: Any) -> None:
    model.aux_logits = False
    for name in ("AuxLogits", "aux1", "aux2"):
        if hasattr(model, name):
            setattr(model, name, None)


def _replace_head(model: nn.Module, before: int, num_classes: int) -> None:
    """Replace every layer that gives `before` classes by a new one for `num_classes`."""
    if before == num_classes:
        return
    for name, layer in list(model.named_modules()):
        owner_name, _, attribute = name.rpartition(".")
        owner = model.get_submodule(owner_name)
        if isinstance(layer, nn.Linear) and layer.out_features == before:
            setattr(owner, attribute, nn.Linear(layer.in_features, num_classes))
        elif isinstance(layer, nn.Conv2d) and layer.out_channels == before:  # squeezenet
            setattr(owner, attribute, nn.Conv2d(layer.in_channels, num_classes, kernel_size=1))
