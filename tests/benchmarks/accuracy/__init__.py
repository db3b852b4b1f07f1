"""The parts of the accuracy benchmark of LR finders: see `finder_accuracy.py`."""
