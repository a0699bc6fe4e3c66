"""Analyze networks in child processes, so that a user's code touches nothing but its own.

It may loop forever, end its process, print, or change its folder; two files of one name may import
neighbors of one name.
"""

import contextlib
import json
import math
import multiprocessing
import os
import secrets
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from multiprocessing import connection, forkserver, resource_tracker
from pathlib import Path
from typing import Any

from pydantic import Base64Bytes

from cifar_cnn.analysis.results import NetworkFailure, ReceptiveField, Summary
from cifar_cnn.errors import ModelError, UserError, format_warning, one_line
from cifar_cnn.results import Result

MEMORY_LIMIT = 8 << 30
"""Bytes of data that a network's process may have, if the system supports the limit."""
MOST_FILES = 4096
"""More than a process has open before the network's code runs."""
LONGEST_WAIT = 3600
"""Seconds that the system's call can wait; the time limit may be infinite."""
LONGEST_FOLDER = 70
"""Bytes of the folder of a Unix socket, whose path has 107 at most."""


class Answer(Result):
    """What was found of a network, or the line that says why nothing was, with its exit code.

    `title` names a file of weights and its network; `picture` is a PNG that was asked for;
    `traceback` is that of the error, for `--debug`.
    """

    model: str
    document: Summary | ReceptiveField | None = None
    title: str = ""
    picture: Base64Bytes = b""
    error: str = ""
    exit_status: int = 0
    traceback: str = ""

    @property
    def passed(self) -> bool:
        """Whether the network meets the budget, or the minimum of its receptive field."""
        document = self.document
        if isinstance(document, ReceptiveField):
            proof = document.verification
            return document.passed and (proof is None or proof.agreed)
        return document is not None and (document.budget is None or document.budget.passed)

    @property
    def result(self) -> Summary | ReceptiveField | NetworkFailure:
        """The document, or the error with its exit code, as `--json` lists them."""
        return self.document or NetworkFailure(
            model=self.model, error=self.error, exit_status=self.exit_status
        )


Job = Callable[[str], Answer]
"""Analyzes the network of a spec or a file; it can be pickled."""


def answer_each(job: Job, models: Sequence[str], time_limit: float) -> Generator[Answer]:
    """Analyze each network in its own child process; yield the answers in the order of `models`.

    A child is killed, with every process that it has started, after `time_limit` seconds, and when
    the caller closes the generator.
    """
    context = _start_server(job)
    affinity = getattr(os, "sched_getaffinity", None)  # of Linux alone, before Python 3.13
    at_once = min(len(affinity(0)) if affinity else os.cpu_count() or 1, len(models))
    work = partial(_answer, job, str(Path.cwd()), dict(os.environ), at_once)
    with tempfile.TemporaryDirectory(prefix="cifar-cnn-") as folder:
        children = [
            _Child(context, work, model, Path(folder, secrets.token_hex(16))) for model in models
        ]
        waiting, running = deque(children), list[_Child]()
        try:
            for child in children:
                while child.answer is None:
                    while waiting and len(running) < at_once:
                        running.append(waiting.popleft())
                        running[-1].start(time_limit)
                    left = min(each.ends for each in running) - time.monotonic()
                    sentinels = [each.process.sentinel for each in running]
                    connection.wait(sentinels, min(max(0, left), LONGEST_WAIT))
                    for each in [each for each in running if each.is_over]:
                        running.remove(each)
                        each.finish(time_limit)
                yield child.answer
        finally:
            for each in running:
                each.kill()


class _Child:
    """The process of one network, and the file in which it leaves its answer.

    A pipe would not do: the network's code may write to all that are open, or hold them. The file
    has a random name, so that code that writes where others' answers lie does not hit it.
    """

    def __init__(
        self, context: Any, work: Callable[[str, Path], None], model: str, file: Path
    ) -> None:
        self.model, self.file = model, file
        self.process = context.Process(target=work, args=(model, file))
        self.ends = math.inf
        self.answer: Answer | None = None

    def start(self, time_limit: float) -> None:
        self.process.start()
        self.ends = time.monotonic() + time_limit

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.ends or not self.process.is_alive()

    def finish(self, time_limit: float) -> None:
        """Read the answer, and kill what the network's code has left behind."""
        status, error = self.process.exitcode, UserError
        self.kill()
        try:
            self.answer = Answer.model_validate(json.loads(self.file.read_bytes()))
        except (OSError, ValueError, RecursionError):  # there is none, or not a whole one
            if status is None:
                line = f"took longer than {time_limit:g} s: see --time-limit"
            else:
                how = f"signal {-status}, {signal.strsignal(-status)}" if status < 0 else status
                line, error = f"ended its process before an answer ({how})", ModelError
            self.answer = _failure(self.model, f"model {self.model!r} {line}", error)

    def kill(self) -> None:
        if self.process.pid is None:  # a signal came while it started
            return
        with contextlib.suppress(ProcessLookupError):  # it has ended, and nothing of it is left
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()


def _answer(
    job: Job, folder: str, environment: dict[str, str], at_once: int, model: str, file: Path
) -> None:
    """Analyze the network in its own process, one of `at_once`, and leave the answer in a file."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    _confine(at_once)
    try:
        answer = job(model)
    except UserError as error:
        answer = _failure(model, str(error), error, traceback.format_exc())
    except BaseException as error:  # noqa: BLE001 - the network's code may raise anything
        line = f"model {model!r}: {type(error).__name__}: {one_line(error)}"
        answer = _failure(model, line, ModelError, traceback.format_exc())
    file.write_text(json.dumps(answer.model_dump(mode="json")), encoding="utf-8")
    with contextlib.suppress(OSError, ValueError):  # closed by the network's code
        sys.stdout.flush()
    os._exit(0)  # threads that it has started are not waited for


def _confine(at_once: int) -> None:
    """Isolate the child process: new process group, memory limit, all files but stderr closed.

    The inherited files belong to the fork server: a write to them could end the other children.
    The child may start processes, as a data loader does.
    """
    import torch

    from cifar_cnn.analysis.preload import THREADS

    torch.set_num_threads(max(1, THREADS // at_once))
    multiprocessing.set_start_method(None, force=True)
    sys.stdout.flush()
    os.dup2(2, 1)
    warnings.formatwarning = format_warning
    if sys.platform != "win32":
        import resource

        tracker = resource_tracker.getfd()
        assert tracker is not None
        os.closerange(3, MOST_FILES)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, tracker)  # which a data loader looks for
        os.dup2(nothing, 0)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = MEMORY_LIMIT if most == resource.RLIM_INFINITY else min(MEMORY_LIMIT, most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def _failure(model: str, line: str, error: type[UserError] | UserError, trace: str = "") -> Answer:
    return Answer(model=model, error=line, exit_status=error.exit_status, traceback=trace)


def _start_server(job: Any) -> Any:
    """Start the process that imports torch once, and from which the others are forked."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    module = getattr(job, "func", job).__module__
    context.set_forkserver_preload(["cifar_cnn.analysis.preload", "__main__", module])
    environment, folder = dict(os.environ), tempfile.tempdir
    os.environ["PYTHONSAFEPATH"] = "1"  # the current folder's files are not Python's own modules
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_FOLDER:
        tempfile.tempdir = "/tmp"  # noqa: S108 - multiprocessing makes a folder of its own there
    resource_tracker.ensure_running()  # it would undo the mask
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a terminal sends it to all
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        tempfile.tempdir = folder
        os.environ.clear()
        os.environ.update(environment)
    return context
