"""The executors of this package keep what any has to."""

from __future__ import annotations

from .executor_suite import ExecutorConformance


class TestLocalProcesses(ExecutorConformance):
    factory = "lrexp.runs.executor:LocalProcesses"


class TestInThisProcess(ExecutorConformance):
    factory, has_processes = "described:InThisProcess", False
