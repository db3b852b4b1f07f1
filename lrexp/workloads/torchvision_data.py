"""torchvision's datasets by class name, their images in [0, 1]; all imports of torchvision.

torchvision reads, checks and downloads its files itself. Its arguments are completed here, and its
exceptions, a build that does not fit torch among them, say what a user can do. Nothing that names
no torchvision class comes here.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from lrexp.errors import ConfigError, RunError
from lrexp.schedules.signatures import Count, check_arguments, named_parameters, require
from lrexp.workloads.tensors import Images, ImageScaling


def torchvision_module(name: str, key: str) -> Any:
    """Return the module `torchvision.<name>`.

    Args:
        name: `datasets` or `models`.
        key: of the config, that needs it.

    Raises:
        ConfigError: if torchvision is missing or was built for another torch, with both versions.
    """
    try:
        return import_module(f"torchvision.{name}")
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        # A mismatch shows as "operator torchvision::nms does not exist", or, on a second try, as
        # a half-imported module; an undefined symbol is an OSError or ImportError.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError.single(
            key,
            f"needs torchvision, and torchvision {_installed()} cannot be imported beside "
            f"torch {torch.__version__}: {reason}",
            f"torchvision.{name}",
            "Install a pair that fits: pip install --upgrade torch torchvision "
            "(both in one command, from the same index).",
        ) from error


def _installed() -> str:
    try:
        return version("torchvision")
    except PackageNotFoundError:
        return "(not installed)"


# What lrexp decides, or what no config can write.
_OURS = ("train", "transforms", "loader", "is_valid_file")
_VALIDATION_SPLITS = ("val", "valid", "test")


def torchvision_dataset(name: str) -> TorchvisionDataset | None:
    """Return the maker of a torchvision dataset, or None if torchvision has no such class.

    Example:
        >>> torchvision_dataset("MNIST")(root="data", download=True)  # doctest: +SKIP
    """
    module = torchvision_module("datasets", "data.name")
    found = getattr(module, name, None) if name in module.__all__ else None
    return TorchvisionDataset(name, found) if isinstance(found, type) else None


@dataclass(frozen=True)
class TorchvisionDataset:
    """A torchvision dataset class, to be called with `root` and the class's own arguments.

    Further arguments: `size` resizes every image to size × size (`resize` where the class has a
    `size` of its own); `transform` replaces the scaling to [0, 1].
    """

    name: str
    cls: type

    def __call__(self, **args: Any) -> Images:
        """Return the training set and, where the class has one, its validation or test set.

        Raises:
            ConfigError: for a wrong argument, or files that are not there.
            RunError: if a download is not possible.
        """
        require(*check_arguments(self, args, title=self.name), prefix="data.args")
        args = dict(args)
        size = args.pop(self._size_name, None)
        is_plain = args.get("transform") is None
        if is_plain:
            args["transform"] = ImageScaling(size)
        parameters = _parameters(self.cls)
        train = self._made({**args, "train": True} if "train" in parameters else args)
        return Images(train, self._validation(parameters, args), is_plain)

    @property
    def __signature__(self) -> inspect.Signature:
        """What a config may write under `data.args`."""
        kept = [p for name, p in _parameters(self.cls).items() if name not in _OURS]
        kind, hint = inspect.Parameter.KEYWORD_ONLY, Count | None
        size = inspect.Parameter(self._size_name, kind, default=None, annotation=hint)
        return inspect.Signature([*(p.replace(kind=kind) for p in kept), size])

    @property
    def _size_name(self) -> str:
        return "resize" if "size" in _parameters(self.cls) else "size"

    def _validation(self, parameters: Mapping[str, object], args: dict[str, Any]) -> Any:
        if "train" in parameters:
            return self._made({**args, "train": False})
        if "split" not in parameters:
            return None
        for split in _VALIDATION_SPLITS:
            with suppress(_UnknownSplitError):
                return self._made({**args, "split": split})
        return None

    def _made(self, args: dict[str, Any]) -> Any:
        with _explained(self, args), redirect_stdout(sys.stderr), warnings.catch_warnings():
            # The pickles of CIFAR are of Python 2; numpy >= 2.4 wants a bool where they have 0.
            warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
            return self.cls(**args)


class _UnknownSplitError(ConfigError):
    """The class has no split of that name."""


@contextmanager
def _explained(dataset: TorchvisionDataset, args: Mapping[str, Any]) -> Iterator[None]:
    name, root = dataset.name, args.get("root")
    try:
        yield
    except ModuleNotFoundError as error:
        what = f"needs the package {error.name!r} for {name}"
        remedy = f"Install it: pip install {error.name}."
        raise ConfigError.single("data.name", what, name, remedy) from error
    except ValueError as error:
        if str(error).startswith("Unknown value") and "split" in args:
            raise _UnknownSplitError.single(
                "data.args.split", f"is no split of {name}: {error}", args["split"], "Choose one."
            ) from error
        raise _damaged(name, root, error) from error
    except TypeError as error:
        what = f"do not fit {name}: {error}"
        shown = {key: value for key, value in args.items() if key != "transform"}
        raise ConfigError.single("data.args", what, shown, "See torchvision's docs.") from error
    except (RuntimeError, OSError) as error:
        if not _is_absence(error):
            raise _damaged(name, root, error) from error
        folder = _folder(dataset, root)
        if args.get("download"):
            raise RunError(
                f"data.args.download: {name} could not be downloaded to {folder}: "
                f"{_reason(error)}. Check the network and the folder's permissions, or copy the "
                f"files there from elsewhere and set data.args.download: false."
            ) from error
        remedy = f"Put the files into {folder}"
        if "download" in dataset.__signature__.parameters:
            remedy = f"Set data.args.download: true, or put the files into {folder}"
        what = f"has no usable files of {name}: {_reason(error)}"
        raise ConfigError.single("data.args.root", what, str(root), f"{remedy}.") from error
    except Exception as error:  # unpickling, image decoding and archives raise all sorts
        raise _damaged(name, root, error) from error


def _damaged(name: str, root: object, error: Exception) -> ConfigError:
    what = f"has files of {name} that cannot be read: {type(error).__name__}: {_reason(error)}"
    remedy = "Remove the files and download them again."
    return ConfigError.single("data.args.root", what, str(root), remedy)


def _is_absence(error: Exception) -> bool:
    """Return whether files are missing or could not be fetched, rather than read and found bad."""
    words = ("not found", "found no", "corrupted", "download")  # as torchvision says it
    return isinstance(error, OSError) or any(word in str(error).lower() for word in words)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _folder(dataset: TorchvisionDataset, root: object) -> Path:
    """Return the folder that torchvision searches, as far as the class tells."""
    folder = Path(str(root)).absolute()
    if isinstance(getattr(dataset.cls, "raw_folder", None), property):  # MNIST and its kin
        return folder / dataset.name / "raw"
    base = getattr(dataset.cls, "base_folder", None)  # CIFAR
    return folder / base if isinstance(base, str) else folder


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class's constructor; `**kwargs` stand for those of its parent."""
    found: dict[str, inspect.Parameter] = {}
    for init in (vars(kind)["__init__"] for kind in cls.__mro__ if "__init__" in vars(kind)):
        found = {**named_parameters(init), **found}
        if all(p.kind is not p.VAR_KEYWORD for p in inspect.signature(init).parameters.values()):
            break
    return {name: parameter for name, parameter in found.items() if name != "self"}
