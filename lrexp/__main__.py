"""`python -m lrexp`."""

from lrexp.cli import main

main()
