"""The server that forks Python processes: they are as if they had been started."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from starting import Started, Starter
from waiting import wait_for

TELL = """\
import json, os, signal, sys
names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE")
ways = [getattr(signal.getsignal(getattr(signal, n)), "__name__", signal.getsignal(getattr(signal, n))) for n in names]
print(json.dumps({"argv": sys.argv, "folder": os.getcwd(), "x": os.environ.get("X"), "path": sys.path[:2],
    "ways": ways, "leads": os.getsid(0) == os.getpid(), "main": __name__, "torch": "torch" in sys.modules}))
print("other", file=sys.stderr)
"""


@pytest.mark.parametrize("quick", [True, False], ids=["forked", "truly"])
def test_a_process_is_as_it_was_asked_for(quick: bool, starter: Starter, tmp_path: Path) -> None:
    popen = starter.popen if quick else subprocess.Popen
    environment = {**os.environ, "X": "here", "PYTHONPATH": "/a"}
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = [sys.executable, "-c", TELL, "one", "two"]
    process = popen(
        words, cwd=tmp_path, env=environment, text=True, start_new_session=True, **streams
    )
    out, err = process.communicate(timeout=100)
    assert err == "other\n"
    assert process.returncode == 0
    told = json.loads(out)
    assert told.pop("torch") == quick
    ways = told.pop("ways")
    if quick:  # whatever the tests were started with
        assert ways == ["default_int_handler", 0, 0, 1]
    assert told == {
        "argv": ["-c", "one", "two"], "folder": str(tmp_path), "x": "here", "path": ["", "/a"],
        "leads": True, "main": "__main__",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "expected", "words"),
    [
        ("", 0, ""),
        ("raise SystemExit(3)", 3, ""),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import os; os._exit(7)", 7, ""),
        ("import os; os.kill(os.getpid(), 9)", -9, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", -2, "KeyboardInterrupt"),
        ("import atexit; atexit.register(lambda: __import__('os')._exit(9))", 9, ""),
    ],
)
def test_exit_codes(code: str, expected: int, words: str, starter: Starter) -> None:
    with starter.start(["-c", code], stderr=subprocess.PIPE, text=True) as process:
        _, err = process.communicate(timeout=100)
    assert process.returncode == expected
    assert words in err


def test_several_at_once_and_what_they_start(starter: Starter) -> None:
    """A forked process forks what it starts; it ends with its pipe, as a worker does."""
    inner = "import sys; sys.stdin.read()"
    outer = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-c', {inner!r}], stdin=subprocess.PIPE)\n"
        "print(p.pid, flush=True); time.sleep(1000)"
    )
    processes = [starter.start(["-c", outer], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert {p.pid for p in processes} <= set(starter.asked_by(os.getpid()))
    for process in processes:
        (pid,) = [int(process.stdout.readline())]
        assert starter.asked_by(process.pid) == [pid]
        assert process.poll() is None
        process.kill()
        assert process.wait(100) == -signal.SIGKILL
        process.stdout.close()
        wait_for(lambda pid=process.pid: not starter.asked_by(pid))


def test_only_python_is_forked(starter: Starter) -> None:
    for words, is_forked in ((["true"], False), ([sys.executable, "-c", ""], True)):
        with starter.popen(words) as process:
            assert isinstance(process, Started) == is_forked
        assert process.returncode == 0


def asker(starter: Starter) -> socket.socket:
    """Return a connection to the server, for one that behaves as no other does."""
    server = socket.socket(socket.AF_UNIX)
    server.connect(starter.address)
    return server


REQUEST = {
    "words": ["-c", "import time; time.sleep(1000)"], "folder": "/", "environment": {},
    "session": False, "asker": -1,
}  # fmt: skip


@pytest.mark.parametrize("sent", [0, 2, 4, 20])
def test_who_asks_may_die_in_the_middle(sent: int, starter: Starter) -> None:
    """The server serves the next one."""
    data = json.dumps(REQUEST).encode()
    with asker(starter) as server:
        if sent:
            whole = struct.pack(">I", len(data)) + data
            socket.send_fds(server, [whole[:sent]], [0, 1, 2])
    with starter.start(["-c", "raise SystemExit(4)"]) as process:
        assert process.wait(100) == 4
    assert starter.asked_by(-1) == []


def test_a_process_that_nobody_asked_for_any_more_is_killed(starter: Starter) -> None:
    data = json.dumps(REQUEST).encode()
    with asker(starter), asker(starter) as server:  # the first keeps the server waiting
        socket.send_fds(server, [struct.pack(">I", len(data)) + data], [0, 1, 2])
        server.close()
    with starter.start(["-c", "raise SystemExit(4)"]) as process:
        assert process.wait(100) == 4  # the server answers in turn: it has started the other by now
    wait_for(lambda: not starter.asked_by(-1))
