"""Find the networks that a command line names, and show a result for each."""

import glob
import signal
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cifar_cnn.cli.options import complete_from
from cifar_cnn.cli.process import stop_signals
from cifar_cnn.errors import RequestError, UserError
from cifar_cnn.settings import resolve_settings
from cifar_cnn.settings.fields import MODELS
from cifar_cnn.storage.files import write_result
from cifar_cnn.storage.naming import MODEL, find_checkpoint, is_file_of_weights, is_spec

if TYPE_CHECKING:
    from cifar_cnn.analysis.isolation import Answer, Job
    from cifar_cnn.data.dataset import Progress

HANGUP = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()
STOPPED = ("stopped before the verdict", *HANGUP)
Networks = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NETWORK",
        help="Networks as --model takes them, patterns of files (submissions/*.py), runs, or "
        "files of weights (a run's model.pt).",
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME|MODULE:ATTR|FILE.py:ATTR",
        help="Network: a built-in name, module:attr or path.py:attr; repeatable "
        "(default: baseline, or the checkpoint's own).",
        rich_help_panel="Network",
        autocompletion=complete_from(MODELS),
    ),
]


def find_networks(
    networks: Sequence[str] | None, models: Sequence[str] | None, overrides: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """Return the specs and weight files, and the settings to analyze each one with.

    Beside a file of weights, `--model` is no network of its own: as in `evaluate`, it lets the code
    of that file's network run.
    """
    default = resolve_settings(overrides).model
    beside = _expand(models or ())
    code = [each for each in beside if not is_file_of_weights(each)]
    names = [*_expand(networks or ()), *(each for each in beside if each not in code)]
    if code and any(map(is_file_of_weights, names)):
        if len(code) > 1:
            raise RequestError(
                "--model beside a file of weights says which code that may run: give it once, and "
                "other networks without it"
            )
        return list(dict.fromkeys(names)), {**overrides, "model": code[0]}
    names = list(dict.fromkeys([*names, *code]))
    is_one_spec = len(names) == 1 and not is_file_of_weights(names[0])
    return names or [default], {**overrides, "model": names[0]} if is_one_spec else dict(overrides)


def _expand(networks: Sequence[str]) -> list[str]:
    """Expand glob patterns, and replace each run by its model.pt."""
    names: list[str] = []
    for name in networks:
        source, colon, attribute = name.rpartition(":")
        pattern = source if colon else name
        if not glob.has_magic(pattern) or Path(pattern).is_file():
            is_run = not is_file_of_weights(name) and not is_spec(name)
            names.append(str(find_checkpoint(name)) if is_run else name)
            continue
        files = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute ones too
        if not files:
            raise RequestError(f"no file matches {pattern}: name files that are there")
        for file in files:  # a folder without a model.pt gets a line with that error
            path = str(Path(file) / MODEL) if Path(file).is_dir() else file
            names.append(f"{file}{colon}{attribute}" if colon else path)
    return list(dict.fromkeys(names))


def analyze_one(job: "Job", model: str, time_limit: float, file: Path | None = None) -> "Answer":
    """Return the answer for one network; raise its error.

    Its analysis runs in a child process, unless it is built in and its weights are in no file.
    """
    if model in MODELS and file is None:
        with stop_signals(*STOPPED):
            return job(model)
    (answer,) = _analyze(job, [model], time_limit)
    if answer.document is None:
        kind = RequestError if answer.exit_status == RequestError.exit_status else UserError
        raise kind(answer.error) from UserError(f"in the child process:\n{answer.traceback}")
    return answer


def analyze_each(
    job: "Job",
    models: Sequence[str],
    command: str,
    time_limit: float,
    csv: Path | None,
    junit: Path | None,
    console: Console,
    limits: str | None = None,
) -> tuple[Any, int]:
    """Show a line for each network, write the files, and return the documents.

    `limits` is the file that set the limit, where the documents do not name it.
    """
    from cifar_cnn.report.console import progress_console
    from cifar_cnn.report.network_tables import row_of, show_networks, to_csv, to_junit
    from cifar_cnn.report.progress import Display

    with Display(progress_console(json=console.quiet)) as display:
        answers = _analyze(job, models, time_limit, display)
    rows = [row_of(answer, limits) for answer in answers]
    show_networks(console, rows)
    if csv is not None:
        write_result(csv, to_csv(rows))
    if junit is not None:
        write_result(junit, to_junit(rows, command))
    have_passed = all(answer.passed for answer in answers)
    return [answer.result for answer in answers], int(not have_passed)


def _analyze(
    job: "Job",
    models: Sequence[str],
    time_limit: float,
    progress: "Progress" = lambda *_: None,
) -> "list[Answer]":
    from cifar_cnn.analysis.isolation import answer_each

    answers: list[Answer] = []
    progress("networks", None, 0, len(models))
    with stop_signals(*STOPPED), closing(answer_each(job, models, time_limit)) as each:
        for answer in each:
            answers.append(answer)
            progress("networks", None, len(answers), len(models))
    return answers
