"""lrexp in other programs' loops: one adapter per file. Start with `lr_finder.py`."""
