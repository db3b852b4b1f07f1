"""Learning-rate schedules: pure functions of the step, and controllers with explicit state.

A family is a file; each schedule registers itself under its name, and its signature says what a
config may set. `build.py` makes one from a config's section. Only `torch_adapter.py` imports torch,
and only when a class of torch is named.
"""

from lrexp.schedules.schedule import register

__all__ = ["register"]
