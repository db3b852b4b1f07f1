"""A run directory to text and pictures.

A picture has two halves: `data/` says what it shows, `figure.py` draws it. What is
drawn or printed is read from files, so it looks the same while a run goes on, after it
ended, and after a crash."""
