"""Arrays to statements: range-test rules, race decisions, rankings, statistics.

Pure functions of numbers; nothing here knows files, torch or a plot."""
