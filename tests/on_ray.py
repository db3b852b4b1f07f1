"""The executor `ray` on the cluster of the tests, which hands over what it wrote at once."""

from __future__ import annotations

import os
from typing import Any

import lrexp.integrations.ray
from lrexp.integrations.ray import RayExecutor
from lrexp.runs.spec import RunSpec

ADDRESS = "LREXP_TEST_RAY"  # in the environment: of the cluster


def executor(jobs: int, spec: RunSpec, **options: Any) -> RayExecutor:
    """Return it with so many slots."""
    lrexp.integrations.ray.SYNC_SECONDS = 0.02
    given = {"address": os.environ[ADDRESS], "num_cpus": 0.5, "slots": jobs, **options}
    return RayExecutor(jobs, spec, **given)
