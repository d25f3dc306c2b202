"""Runs tests in several processes: `pytest -p tests.forked --processes 3`.

They are forked from the one that has imported and collected the tests; those of pytest-xdist are started, and each takes a minute to
do the same. A file is run by one process, as what its tests share is made once; towards the end idle processes take tests from others.
"""

import fcntl
import gc
import os
import sys
import threading
import warnings
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, groupby
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of how many processes run the tests."""
    parser.addoption(
        "--processes", type=int, default=1, help="how many processes run the tests, forked when all are collected"
    )


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests in several processes, unless one is enough."""
    option = session.config.option
    if option.processes < 2 or option.collectonly or session.testsfailed:
        return None
    if started := [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]:
        raise pytest.UsageError(
            f"expected no thread before processes are forked, got {started} from importing the tests"
        )
    _Runner(session).run()
    return True


@dataclass(eq=False)
class _Worker:
    """A process that runs tests."""

    process: BaseProcess
    connection: Connection
    queue: deque[pytest.Item]
    """Tests that it will be given."""
    given: deque[pytest.Item | None] = field(default_factory=lambda: deque([None, None], maxlen=2))
    """The test that it runs, and the one that it runs next."""


class _Runner:
    """Gives tests to processes, and their reports to the plugins of this one."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._places = {item: place for place, item in enumerate(session.items)}
        self._files = deque(deque(file) for _, file in groupby(session.items, key=lambda item: item.path))
        self._workers: list[_Worker] = []
        self._numbers = count()

    def run(self) -> None:
        session = self._session
        session.config.pluginmanager.getplugin("terminalreporter").showfspath = False  # several files run at once
        folder = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        if warm := sys.modules.get("tests.warm"):  # where a test needs it, because loading takes ten seconds
            warm.share(folder / "warm.log")
        if "numba" in sys.modules:
            _compile_once(folder)
        try:
            while self._files or self._workers:
                while self._files and len(self._workers) < session.config.option.processes:
                    self._start()
                ready = wait([worker.connection for worker in self._workers])
                for worker in [worker for worker in self._workers if worker.connection in ready]:
                    self._receive(worker)
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
        finally:
            for worker in self._workers:
                worker.connection.close()
                worker.process.join()

    def _start(self) -> None:
        ours, theirs = Pipe()
        name = f"worker-{next(self._numbers)}"
        others = [ours, *(worker.connection for worker in self._workers)]
        process = get_context("fork").Process(target=_work, args=(self._session, theirs, others, name))
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours, self._files.popleft()))

    def _receive(self, worker: _Worker) -> None:
        config = self._session.config
        try:
            name, words = worker.connection.recv()
        except (EOFError, OSError):  # none, or half of one
            self._end(worker)
            return
        if name == "next":
            worker.given.append(self._next(worker))
            with suppress(BrokenPipeError, ConnectionResetError):  # the next look finds that it has ended
                worker.connection.send(self._places.get(worker.given[-1]))
        elif name == "report":
            report = config.hook.pytest_report_from_serializable(config=config, data=words)
            config.hook.pytest_runtest_logreport(report=report)
        elif name == "warning":
            config.hook.pytest_warning_recorded.call_historic(kwargs=words)
        else:
            worker.given.append(None)

    def _next(self, worker: _Worker) -> pytest.Item | None:
        if not worker.queue and self._files:
            worker.queue = self._files.popleft()
        if not worker.queue:
            longest = max(self._workers, key=lambda other: len(other.queue)).queue
            worker.queue.extend(reversed([longest.pop() for _ in range(len(longest) // 2)]))
        return worker.queue.popleft() if worker.queue else None

    def _end(self, worker: _Worker) -> None:
        """Report the test during which a process has ended, and put back what it was to run."""
        self._workers.remove(worker)
        worker.connection.close()
        worker.process.join()
        running, following = worker.given
        if following is not None:
            worker.queue.appendleft(following)
        if worker.queue:
            self._files.append(worker.queue)
        ended = f"the process that runs tests has ended with exit code {worker.process.exitcode}"
        if running is not None:
            report = pytest.TestReport(running.nodeid, running.location, {}, "failed", ended, "call")
            self._session.config.hook.pytest_runtest_logreport(report=report)
        elif worker.process.exitcode:
            self._session.shouldfail = ended  # which is printed
            raise self._session.Failed(ended)


def _compile_once(folder: Path) -> None:
    """Let numba compile a function in one process at a time: the next ones find on disk what it made, which takes it seconds."""
    from numba.core.dispatcher import Dispatcher

    compiled, alone, outermost = Dispatcher.compile, threading.RLock(), [True]

    def once(self: Any, signature: Any) -> Any:
        with alone:
            if not outermost[0]:  # what a function calls is compiled with it
                return compiled(self, signature)
            outermost[0] = False
            try:
                with (folder / f"{self.__name__}.lock").open("w") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    return compiled(self, signature)
            finally:
                outermost[0] = True

    Dispatcher.compile = once


class _Sender:
    """Sends what happens in a process to the one that collected the tests, in place of the plugin that prints it."""

    def __init__(self, connection: Connection, config: pytest.Config) -> None:
        self._connection = connection
        self._config = config
        self.is_told_anew = True
        """Whether warnings come that were recorded before: those of other processes, when this becomes a plugin."""
        self._tw = config.get_terminal_writer()  # where pytest-timeout looks for it, to print the stacks of threads

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._connection.send(("report", data))

    def pytest_runtest_teardown(self, nextitem: pytest.Item | None) -> None:
        if nextitem is None:
            gc.collect()  # so that what was left open is found before the process ends

    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, when: str, nodeid: str, location: tuple[str, int, str] | None
    ) -> None:
        if self.is_told_anew:
            return
        kind, file, line = warning_message.category, warning_message.filename, warning_message.lineno
        text = warnings.WarningMessage(str(warning_message.message), kind, file, line)  # because not all can be sent
        self._connection.send(
            ("warning", {"warning_message": text, "when": when, "nodeid": nodeid, "location": location})
        )


def _work(session: pytest.Session, connection: Connection, others: list[Connection], name: str) -> None:
    """Run the tests that are given, in a process of its own."""
    for other in others:
        other.close()  # or those who listen at their other ends would not see that the run was stopped
    # Nor may what this process forks hold its end, or nobody would see that it has ended, in the middle of a message perhaps.
    os.register_at_fork(after_in_child=connection.close)
    config = session.config
    capture = config.pluginmanager.getplugin("capturemanager")
    capture.stop_global_capturing()  # into a file that is shared with the others
    capture.start_global_capturing()
    capture.suspend_global_capture()
    sender = _Sender(connection, config)
    config.pluginmanager.unregister(name="terminalreporter")
    config.pluginmanager.register(sender, "terminalreporter")
    sender.is_told_anew = False
    factory: Any = config._tmp_path_factory  # type: ignore[attr-defined]
    factory._basetemp = factory.getbasetemp() / name
    factory._basetemp.mkdir(mode=0o700)

    def ask() -> pytest.Item | None:
        connection.send(("next", None))
        place = connection.recv()
        return None if place is None else session.items[place]

    try:
        item = ask()
        while item is not None:
            following = ask()
            config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            item = following
        connection.send(("done", None))
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        pass  # the run was stopped
    finally:
        session._setupstate.teardown_exact(None)
