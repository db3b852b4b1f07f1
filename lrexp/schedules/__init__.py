"""Learning-rate schedules: pure functions of the step, and controllers with explicit state.

`build.py` makes one from a config's section. Only `torch_adapter.py` imports torch, and only when
a class of torch is named."""
