"""YAML text to checked experiments: start reading at `load.py`, the pipeline in one page.

A config is read with the line of each key, short forms are written out, and everything is checked
at once: keys and types, names and who may be trusted, arguments, schedules, variants. Durations
become steps when the data is known; `resolved_tree` is the complete result.
"""

from lrexp.config.arguments import check_arguments
from lrexp.config.checks import section_problems
from lrexp.config.config import Config
from lrexp.config.document import (
    Document,
    document_from_dict,
    document_from_text,
    read_document,
)
from lrexp.config.edit import with_optimizer_lr
from lrexp.config.json_schema import json_schema
from lrexp.config.load import data_paths, load_config
from lrexp.config.names import Names, resolve
from lrexp.config.reader import parse_value, read_override
from lrexp.config.resolved import resolve_units, resolved_tree
from lrexp.config.schema import (
    CompareConfig,
    DataConfig,
    ExperimentConfig,
    FindLrConfig,
    GroupConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from lrexp.config.starter import STARTER
from lrexp.config.units import Clock, Duration, parse_duration
from lrexp.config.writer import to_yaml

__all__ = [
    "STARTER",
    "Clock",
    "CompareConfig",
    "Config",
    "DataConfig",
    "Document",
    "Duration",
    "ExperimentConfig",
    "FindLrConfig",
    "GroupConfig",
    "ModelConfig",
    "Names",
    "OptimizerConfig",
    "ScheduleConfig",
    "TrainConfig",
    "check_arguments",
    "data_paths",
    "document_from_dict",
    "document_from_text",
    "json_schema",
    "load_config",
    "parse_duration",
    "parse_value",
    "read_document",
    "read_override",
    "resolve",
    "resolve_units",
    "resolved_tree",
    "section_problems",
    "to_yaml",
    "with_optimizer_lr",
]
