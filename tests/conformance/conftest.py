"""Assertions of the suite say what they compared, as those of a test file do."""

import pytest

pytest.register_assert_rewrite("tests.conformance.executor_suite")
