"""torchvision's classification models by name, with as many outputs as the data has classes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

from torch import nn

from lrexp.data.argument_checks import raise_any, wrong_choice, wrong_count
from lrexp.data.torchvision_import import torchvision_module
from lrexp.errors import ConfigError, Problem, RunError

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

    def __call__(self, num_classes: int, weights: str | None = None, **arguments: Any) -> nn.Module:
        """Return the model.

        Raises:
            ConfigError: for a wrong argument.
            RunError: if the weights are not on disk and cannot be downloaded.
        """
        raise_any(wrong_count("model.args.num_classes", num_classes))
        if self.name in _OLD:
            arguments = {"aux_logits": False, "init_weights": True, **arguments}
        if weights is None:
            return self._built({"num_classes": num_classes, **arguments})
        entry = self._weights(weights)
        if arguments.get("image_size") == 224:  # filled in from the data, and the weights' own
            del arguments["image_size"]
        model = self._built({"weights": entry, **arguments})
        _replace_head(model, len(entry.meta["categories"]), num_classes)
        return model

    @property
    def __signature__(self) -> inspect.Signature:
        """What a config may write under `model.args`, and what is filled in."""
        names = ["num_classes", *(["image_size"] if self.name.startswith("vit_") else [])]
        kind = inspect.Parameter.KEYWORD_ONLY
        return inspect.Signature(
            [
                *(inspect.Parameter(name, kind) for name in names),
                inspect.Parameter("weights", kind, default=None),
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
        raise_any(wrong_choice("model.args.weights", name, known))
        return known[str(name)]

    def _built(self, arguments: dict[str, Any]) -> nn.Module:
        try:
            with redirect_stdout(sys.stderr):  # torch.hub may print the address there
                return self.builder(**arguments)
        except TypeError as error:
            what = f"do not fit {self.name}: {error}"
            raise ConfigError.single("model.args", what, arguments, "Correct them.") from error
        except (URLError, OSError) as error:
            entry = arguments["weights"]
            raise RunError(
                f"model.args.weights: {entry} of {self.name} could not be downloaded: {error}. "
                f"Check the network, or put {entry.url} into ~/.cache/torch/hub/checkpoints."
            ) from error


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
