"""YAML text to a checked experiment: `load.py` is the pipeline, in one page."""
