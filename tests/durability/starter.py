"""Starts commands in processes of their own, quickly: it imports lrexp once and forks.

It reads one JSON list of words per line, with the working directory first, and answers with the
pid of the process that runs the command, then with the status that it ended with.
"""

from __future__ import annotations

import importlib
import json
import os
import sys


def main() -> None:
    """Serve until stdin ends."""
    import torch

    torch.set_num_threads(1)
    for module in ("lrexp.experiment", "lrexp.report.figure", "sklearn.datasets"):
        importlib.import_module(module)
    from lrexp.cli import run

    say = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        folder, *words = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.chdir(folder)
            for number, name in ((1, "out.txt"), (2, "err.txt")):
                file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(file, number)
            code = 70
            try:
                code = run(words)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(pid, file=say, flush=True)
        print(os.waitpid(pid, 0)[1], file=say, flush=True)


if __name__ == "__main__":
    main()
