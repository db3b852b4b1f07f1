"""A run directory's life: described, trained into, interrupted, resumed, read.

Everything a run produced lies there as CSV, JSON, YAML and PNG; whatever is shown later is read
from it and from nothing else."""
