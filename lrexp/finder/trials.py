"""The names of a range test's trials in a run directory, where others have a variant's."""

RANGE_TEST = "range_test"
UNTRAINED = "untrained"  # the same batches once more, without learning
