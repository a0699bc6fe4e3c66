"""Many networks at once, each in a process of its own: what one does touches no other.

Their code may loop forever, end its process, print, or change its folder; two files of one name may
import neighbors of one name.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import TypeAdapter

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.analysis.results import NetworkFailure, ReceptiveField, Summary
from cifar_cnn.errors import ModelError, UserError, format_warning, one_line

MEMORY_LIMIT = 8 << 30
"""Bytes of data that a network's process may have, where the system can hold it to that."""

MOST_FILES = 4096
"""More than a process has open before the network's code runs."""

Names = Sequence[str]


@dataclass(frozen=True)
class Answer:
    """What was found of one network: its document, or the line that says why there is none.

    Args:
        model: the network, as `--model` names it.
        passed: whether it meets what is asked of it.
        document: what was found.
        error: one line, where there is none.
        exit_status: of that error.
    """

    model: str
    passed: bool = False
    document: Summary | ReceptiveField | None = None
    error: str = ""
    exit_status: int = 0

    @property
    def result(self) -> Summary | ReceptiveField | NetworkFailure:
        """The document, or the error with its exit status, as `--json` lists them."""
        failure = {"model": self.model, "error": self.error, "exit_status": self.exit_status}
        return self.document or NetworkFailure.model_validate(failure)


ANSWER = TypeAdapter(Answer)
Job = Callable[[str], Answer]


def summary_of(
    model: str,
    *,
    overrides: Mapping[str, Any],
    budget: Budget | None,
    assume_pointwise: Names,
) -> Answer:
    """Summarize one network and hold it against the budget, if there is one."""
    from cifar_cnn.analysis.summary import summarize
    from cifar_cnn.storage.network import open_network

    network = open_network(model, overrides, of_several=True)
    size = network.settings.input_size
    found = summarize(network, size, budget=budget, assume_pointwise=assume_pointwise)
    passed = found.budget is None or found.budget.passed
    return Answer(model, passed, found)


def field_of(
    model: str,
    *,
    overrides: Mapping[str, Any],
    minimum: int,
    assume_pointwise: Names,
) -> Answer:
    """Compute the receptive fields of one network and hold the output's against the minimum."""
    from cifar_cnn.analysis.receptive_field import receptive_field
    from cifar_cnn.storage.network import open_network

    network = open_network(model, overrides, of_several=True)
    size = network.settings.input_size
    found = receptive_field(network, size, minimum=minimum, assume_pointwise=assume_pointwise)
    return Answer(model, found.passed, found)


def answer_each(job: Job, models: Sequence[str], time_limit: float) -> Iterator[Answer]:
    """Yield what `job` answers for each network, in their order, as they are done.

    Args:
        job: takes a model spec and returns its answer; it has to be picklable.
        models: the networks, as `--model` names them.
        time_limit: seconds that each may take, its import included.
    """
    context = _start_server()
    affinity = getattr(os, "sched_getaffinity", None)  # of Linux alone, before Python 3.13
    cores = len(affinity(0)) if affinity else os.cpu_count()
    with TemporaryDirectory(prefix="cifar-cnn-") as folder, ThreadPoolExecutor(cores) as p:
        files = (Path(folder, str(index)) for index in range(len(models)))
        yield from p.map(partial(_ask, context, job, time_limit), models, files)


def _start_server() -> Any:
    """Start the process that imports torch once, and from which the others are forked."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cifar_cnn.analysis.preload"])
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"  # the current folder's files are not Python's own modules
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONSAFEPATH"]
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before
    return context


def _ask(context: Any, job: Job, time_limit: float, model: str, file: Path) -> Answer:
    """Return the answer that the network's process leaves in a file, once that has ended.

    A pipe would not do: the network's code may write to all that are open, or hold them.
    """
    process = context.Process(target=_answer, args=(file, job, model), daemon=True)
    process.start()
    try:
        process.join(time_limit)
        if process.is_alive():
            line = f"model {model!r} took longer than {time_limit:g} s: see --time-limit"
            return Answer(model, error=line, exit_status=UserError.exit_status)
        return ANSWER.validate_json(file.read_bytes())
    except (OSError, ValueError):  # there is none, or not all of it
        line = f"model {model!r} ended its process (status {process.exitcode}) before an answer"
        return Answer(model, error=line, exit_status=ModelError.exit_status)
    finally:
        _end(process)


def _end(process: Any) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended, and nothing of it is left
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _answer(file: Path, job: Job, model: str) -> None:
    _confine()
    try:
        answer = job(model)
    except UserError as error:
        answer = Answer(model, error=str(error), exit_status=error.exit_status)
    except BaseException as error:  # noqa: BLE001 - the network's code may raise anything
        line = f"model {model!r}: {type(error).__name__}: {one_line(error)}"
        answer = Answer(model, error=line, exit_status=ModelError.exit_status)
    file.write_text(json.dumps(ANSWER.dump_python(answer, mode="json")))
    with contextlib.suppress(OSError, ValueError):  # closed by the network's code
        sys.stdout.flush()
    os._exit(0)  # threads that it has started are not waited for


def _confine() -> None:
    """Give the process a group of its own, standard error for its output, and a memory limit.

    The files that it was forked with are closed: what is written there would end the others'.
    """
    sys.stdout.flush()
    os.dup2(2, 1)
    warnings.formatwarning = format_warning
    if sys.platform != "win32":
        import resource

        os.closerange(3, MOST_FILES)
        os.setsid()
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = MEMORY_LIMIT if most == resource.RLIM_INFINITY else min(MEMORY_LIMIT, most)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))
