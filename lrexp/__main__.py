"""`python -m lrexp`."""

from __future__ import annotations

from lrexp.cli import main

main()
