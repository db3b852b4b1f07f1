"""Executors for the tests of Slurm: jobs on this machine without it, and real ones."""

from __future__ import annotations

from lrexp.integrations.slurm import SlurmJobs
from lrexp.runs.spec import RunSpec


def local(jobs: int, spec: RunSpec) -> SlurmJobs:
    """Return one whose jobs are processes of this machine, and end when it is told to stop."""
    return SlurmJobs(jobs, spec, local=True, detach=False)


def real(jobs: int, spec: RunSpec) -> SlurmJobs:
    """Return one of the Slurm that is here."""
    return SlurmJobs(jobs, spec, slots=jobs, detach=False)
