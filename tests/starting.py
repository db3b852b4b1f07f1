"""Python processes that start at once: forked from a process that has imported torch already.

Torch takes seconds to import. A server imports it once and forks for every process that is asked
for, each with a working directory, an environment, streams and signals of its own. The server has
one thread and runs nothing itself, so that its forks are sound; it ends, and all that it started,
with the process that began it. What a forked process starts by `subprocess.Popen` is forked, too,
where it is Python: the workers of `--jobs 2`.

What only a true start shows is no matter for it: the import of torch and a signal meanwhile, options
of the interpreter, threads of torch, sets whose order differs from process to process.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import itertools
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PREPARED = (
    "lrexp.cli", "lrexp.api", "lrexp.runs.train", "lrexp.report.plots", "rich.progress", "cloudpickle",
    "filelock", "safetensors.torch", "scipy.stats", "sklearn.datasets", "torch._dynamo", "kept_digits",
)  # fmt: skip
_LENGTH = struct.Struct(">I")
_STREAMS = 3
PATIENCE = 60.0  # seconds that the server waits for who stopped in the middle of a request
_true_popen = subprocess.Popen


@dataclass(frozen=True)
class Starter:
    """Asks the server for processes.

    Args:
        address: of the server's socket.
    """

    address: str

    def start(self, words: Sequence[object], **options: Any) -> Started:
        """Start a process; `words` are as after `python`, `options` as of `Started`."""
        return Started(self.address, words, **options)

    def popen(self, words: Any, *arguments: Any, **options: Any) -> Any:
        """Do as `subprocess.Popen`: fork what is Python, start all else truly."""
        if isinstance(words, list) and words[0] == sys.executable:
            rest = list(itertools.dropwhile(lambda word: word.startswith("-W"), words[1:]))
            if rest and rest[0] in {"-c", "-m"}:
                return self.start(rest, *arguments, **options)
        return _true_popen(words, *arguments, **options)

    def asked_by(self, pid: int) -> list[int]:
        """Return the processes that live and were asked for by a process, such as its workers."""
        with _asked(self.address, {"asked_by": pid}) as server:
            return list(json.loads(server.makefile().readline()))


class Started:
    """A process that was forked; as `subprocess.Popen`, in what is needed of that."""

    def __init__(
        self,
        address: str,
        words: Sequence[object],
        *,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        text: bool = False,
        start_new_session: bool = False,
    ) -> None:
        self.args, self.returncode = list(map(str, words)), None
        request = {
            "words": self.args,
            "folder": str(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
            "session": start_new_session,
            "asker": os.getpid(),
        }
        with _ends((stdin, stdout, stderr)) as (theirs, ours):
            self._server, self._unread = _asked(address, request, theirs), b""
            self.pid = int(self._line(None) or 0)
        self.stdin, self.stdout, self.stderr = (
            None if end is None else _opened(end, "r" if number else "w", text=text)
            for number, end in enumerate(ours)
        )

    def poll(self) -> int | None:
        """Return the exit code of a process that has ended; that of a signal is negative."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code."""
        if self.returncode is None:
            status = self._line(timeout)
            if status is None:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = os.waitstatus_to_exitcode(int(status))
            self._server.close()
        return self.returncode

    def communicate(self, input: None = None, timeout: float | None = None) -> tuple[Any, Any]:  # noqa: A002
        """Read all that it writes into pipes, and wait for its end."""
        assert input is None
        deadline = None if timeout is None else time.monotonic() + timeout
        read: dict[str, Any] = {}

        def take(name: str) -> None:
            read[name] = getattr(self, name).read()

        pipes = [name for name in ("stdout", "stderr") if getattr(self, name) is not None]
        threads = [threading.Thread(target=take, args=(name,), daemon=True) for name in pipes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_left(deadline))
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        self._close()
        self.wait(_left(deadline))
        return read.get("stdout"), read.get("stderr")

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # the server may wait for it first
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self.wait()

    def _close(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with suppress(OSError):  # what it did not read is lost
                    stream.close()

    def _line(self, timeout: float | None) -> bytes | None:
        """Return the next line of the server, None where there is none for so long."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._unread:
            self._server.settimeout(_left(deadline))
            try:
                more = self._server.recv(100)
            except (TimeoutError, BlockingIOError):
                return None
            if not more:
                raise RuntimeError("the server of processes is gone")
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


@contextmanager
def _ends(ways: Sequence[Any]) -> Iterator[tuple[list[int], list[int | None]]]:
    """Give the ends of three streams: those for the process, which are closed, and our own."""
    theirs: list[int] = []
    ours: list[int | None] = []
    made: list[int] = []
    for number, way in enumerate(ways):
        other = None
        if way is None:
            end = number
        elif way == subprocess.PIPE:
            read, write = os.pipe()
            end, other = (write, read) if number else (read, write)
            made.append(end)
        elif way == subprocess.DEVNULL:
            end = os.open(os.devnull, os.O_RDWR)
            made.append(end)
        elif way == subprocess.STDOUT:
            end = theirs[1]
        else:
            end = way if isinstance(way, int) else way.fileno()
        theirs.append(end)
        ours.append(other)
    try:
        yield theirs, ours
    finally:
        for end in made:
            os.close(end)


def _opened(end: int, mode: str, *, text: bool) -> Any:
    return os.fdopen(end, mode) if text else os.fdopen(end, f"{mode}b", buffering=0)


def _asked(address: str, request: Mapping[str, Any], streams: Sequence[int] = ()) -> socket.socket:
    """Send a request; the answers come by the socket."""
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    data = json.dumps(request).encode()
    socket.send_fds(server, [_LENGTH.pack(len(data))], list(streams))
    server.sendall(data)
    return server


@contextmanager
def serving() -> Iterator[Starter]:
    """Start the server, and end it and what it started in the end."""
    with tempfile.TemporaryDirectory(prefix="lrexp-") as folder:
        address = str(Path(folder) / "socket")  # a short path: it may have some 100 characters
        words = [sys.executable, __file__, address]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        process = _true_popen(
            words,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the tests
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield Starter(address)
        finally:
            process.stdin.close()
            process.stdout.close()
            process.wait()


# The rest runs in the server.


class _Server:
    """Forks for every request, and tells who asked how the process ended."""

    def __init__(self, address: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen(50)
        self._running: dict[int, tuple[int, socket.socket]] = {}  # pid: who asked, and where
        self._ended, self._wakes = os.pipe()  # something is written when a process ends
        for end in (self._ended, self._wakes):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakes)

    def serve(self) -> tuple[dict[str, Any], list[int]] | None:
        """Return a request and its streams in a process that was forked for it, None in the end."""
        with selectors.DefaultSelector() as ready:
            for source in (self._listener, self._ended, sys.stdin):
                ready.register(source, selectors.EVENT_READ)
            while True:
                sources = [key.fileobj for key, _ in ready.select()]
                if self._ended in sources:
                    os.read(self._ended, 4096)
                    self._tell_of_ends()
                if sys.stdin in sources:  # it was closed: nobody asks any more
                    for pid in self._running:
                        os.kill(pid, signal.SIGKILL)
                    return None
                if self._listener in sources and (forked := self._answer()):
                    return forked

    def _answer(self) -> tuple[dict[str, Any], list[int]] | None:
        asker, _ = self._listener.accept()
        asker.settimeout(PATIENCE)
        request, streams = _received(asker)
        if request is None:
            asker.close()
        elif "asked_by" in request:
            found = [pid for pid, (who, _) in self._running.items() if who == request["asked_by"]]
            _told(asker, json.dumps(found))
            asker.close()
        else:
            pid = os.fork()
            if pid == 0:
                self._forget(asker)
                return request, streams
            self._running[pid] = request["asker"], asker
            if not _told(asker, pid):  # nobody asks for it any more
                os.kill(pid, signal.SIGKILL)
        for stream in streams:
            os.close(stream)
        return None

    def _tell_of_ends(self) -> None:
        for pid in list(self._running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                _, asker = self._running.pop(pid)
                _told(asker, status)
                asker.close()

    def _forget(self, asker: socket.socket) -> None:
        """Close what is the server's alone: a pipe is at its end when nobody holds it."""
        signal.set_wakeup_fd(-1)
        for end in (self._ended, self._wakes):
            os.close(end)
        for own in (asker, self._listener, *(where for _, where in self._running.values())):
            own.close()


def _received(asker: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Return a request and its streams; None is the request of one that died in its words."""
    streams: list[int] = []
    try:
        header, streams, *_ = socket.recv_fds(asker, _LENGTH.size, _STREAMS)
        header += _read(asker, _LENGTH.size - len(header))
        return json.loads(_read(asker, *_LENGTH.unpack(header))), streams
    except (OSError, EOFError):
        return None, streams


def _read(asker: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = asker.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _told(asker: socket.socket, answer: object) -> bool:
    """Send a line to who asked; return whether there is still somebody."""
    try:
        asker.sendall(f"{answer}\n".encode())
    except OSError:
        return False
    return True


def _become(request: Mapping[str, Any], streams: Sequence[int], base: list[str]) -> None:
    """Be a process that has just started."""
    if request["session"]:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    here = request["folder"] if request["words"][0] == "-m" else ""
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = [here, *map(os.path.abspath, given), *base]
    sys.path_importer_cache.clear()
    sys.modules["numpy"].random.seed()  # as at every start: two processes draw other numbers


def _run(words: Sequence[str]) -> None:
    """Run a module or a program as Python does."""
    option, what, *arguments = words
    sys.argv = [option, *arguments]
    if option == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), vars(main))


def _end(error: BaseException | None) -> None:
    """End as Python does, without the third of a second in which it clears its memory."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    elif error is not None:
        code = 1
        traceback.print_exception(error)
    threading._shutdown()  # type: ignore[attr-defined]  # waits for the other threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads, or it is closed
            stream.flush()
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)


def main() -> None:
    """Serve until stdin is closed; in a process that was forked, run what was asked for."""
    address, base = sys.argv[1], sys.path[2:]  # behind the folder of this file and PYTHONPATH
    import torch

    torch.set_num_threads(1)
    for module in PREPARED:
        importlib.import_module(module)
    server = _Server(address)
    gc.freeze()
    print("ready", flush=True)
    forked = server.serve()
    if forked is not None:
        subprocess.Popen = Starter(address).popen  # type: ignore[assignment, misc]
        error = None
        try:
            _become(*forked, base)
            _run(forked[0]["words"])
        except BaseException as raised:
            error = raised
        _end(error)


if __name__ == "__main__":
    main()
