"""Learning-rate schedules: pure functions of the step, and controllers with explicit state.

A family is a file; each schedule registers itself under its name, and its signature says what a
config may set. `build.py` makes one from a config's section. Only `torch_adapter.py` imports torch,
and only when a class of torch is named.
"""

from lrexp.schedules.build import register  # with it, the names of the families are taken

__all__ = ["register"]
