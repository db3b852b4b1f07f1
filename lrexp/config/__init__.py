"""YAML text to checked experiments: start reading at `load.py`, the pipeline in one page.

A config is read with the line of each key, short forms are written out, and everything is checked
at once: keys and types, names and who may be trusted, arguments, schedules, variants. Durations
become steps when the data is known; `resolved_tree` is the complete result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrexp.lazy import imported_from

if TYPE_CHECKING:
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
    from lrexp.config.editor_schema import json_schema
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

__getattr__ = imported_from(
    __name__,
    {
        "Clock": "lrexp.config.units",
        "CompareConfig": "lrexp.config.schema",
        "Config": "lrexp.config.config",
        "DataConfig": "lrexp.config.schema",
        "Document": "lrexp.config.document",
        "Duration": "lrexp.config.units",
        "ExperimentConfig": "lrexp.config.schema",
        "FindLrConfig": "lrexp.config.schema",
        "GroupConfig": "lrexp.config.schema",
        "ModelConfig": "lrexp.config.schema",
        "Names": "lrexp.config.names",
        "OptimizerConfig": "lrexp.config.schema",
        "STARTER": "lrexp.config.starter",
        "ScheduleConfig": "lrexp.config.schema",
        "TrainConfig": "lrexp.config.schema",
        "check_arguments": "lrexp.config.arguments",
        "data_paths": "lrexp.config.load",
        "document_from_dict": "lrexp.config.document",
        "document_from_text": "lrexp.config.document",
        "json_schema": "lrexp.config.editor_schema",
        "load_config": "lrexp.config.load",
        "parse_duration": "lrexp.config.units",
        "parse_value": "lrexp.config.reader",
        "read_document": "lrexp.config.document",
        "read_override": "lrexp.config.reader",
        "resolve": "lrexp.config.names",
        "resolve_units": "lrexp.config.resolved",
        "resolved_tree": "lrexp.config.resolved",
        "section_problems": "lrexp.config.checks",
        "to_yaml": "lrexp.config.writer",
        "with_optimizer_lr": "lrexp.config.edit",
    },
)
