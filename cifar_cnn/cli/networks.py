"""Several networks on one command line: how they are named, and how they are answered."""

import glob
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifar_cnn.cli.options import complete_model
from cifar_cnn.cli.output import print_json
from cifar_cnn.errors import RequestError
from cifar_cnn.settings import resolve_settings
from cifar_cnn.settings.fields import MODELS
from cifar_cnn.storage.naming import MODEL, RUNS, find_checkpoint
from cifar_cnn.training.run_files import check_result

if TYPE_CHECKING:
    from cifar_cnn.analysis.many import Answer

Networks = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NETWORK",
        help="Networks as --model takes them, patterns of files (submissions/*.py), runs, or "
        "files of weights (a run's model.pt).",
        show_default=False,
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME|MODULE:ATTR|FILE.py:ATTR",
        help="Network: a built-in name, module:attr or path.py:attr; repeatable "
        "(default: baseline, or the checkpoint's own).",
        show_default=False,
        rich_help_panel="Network",
        autocompletion=complete_model,
    ),
]
TimeLimit = Annotated[
    float,
    typer.Option(
        min=0.1, help="Seconds that each of several networks may take.", metavar="SECONDS"
    ),
]
CsvFile = Annotated[
    Path | None, typer.Option("--csv", metavar="FILE.csv", help="Write a line a network.")
]
JunitFile = Annotated[
    Path | None,
    typer.Option("--junit", metavar="FILE.xml", help="Write a test a network, for CI to show."),
]


def named(networks: Sequence[str]) -> list[str]:
    """Return the networks with each pattern replaced by what it matches, a run by its model.pt.

    Raises:
        RequestError: a pattern matches nothing.
        CheckpointError, RunError: a run has no network.
    """
    found: list[str] = []
    for name in networks:
        source, colon, attribute = name.rpartition(":")
        pattern = source if colon else name
        if not glob.has_magic(pattern) or Path(pattern).is_file():
            found.append(_stored(name))
            continue
        files = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute ones too
        if not files:
            raise RequestError(f"no file matches {pattern}: name files that are there")
        found += [f"{file}{colon}{attribute}" if colon else _model_of(file) for file in files]
    return list(dict.fromkeys(found))


def _model_of(match: str) -> str:
    """Return the file of weights of a folder, there or not; of its lack its own line tells."""
    return str(Path(match) / MODEL) if Path(match).is_dir() else match


def _stored(name: str) -> str:
    """Return the file of weights of a run that is named; another name as it is."""
    is_run = Path(name).is_dir() or (Path(name).name == name and (RUNS / name).is_dir())
    return str(find_checkpoint(name)) if is_run and name not in MODELS else name


def asked(
    networks: Sequence[str], models: Sequence[str], overrides: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """Return the networks that are asked for, and the settings that each is looked at with.

    Beside a file of weights, `--model` is no network of its own: as in `evaluate`, it lets the code
    of that file's network run.

    Raises:
        RequestError: a pattern matches nothing, a setting is invalid, or it is not clear which
            network a file is of.
        CheckpointError, RunError: a run has no network.
    """
    from cifar_cnn.storage.network import is_file_of_weights

    resolve_settings(overrides)
    beside = named(models)
    code = [each for each in beside if not is_file_of_weights(each)]
    found = list(dict.fromkeys([*named(networks), *(m for m in beside if m not in code)]))
    if code and any(is_file_of_weights(each) for each in found):
        if len(code) > 1:
            raise RequestError(
                "--model beside a file of weights says which code that may run: give it once, and "
                "other networks without it"
            )
        return found, {**overrides, "model": code[0]}
    found = list(dict.fromkeys([*found, *code]))
    if len(found) == 1 and not is_file_of_weights(found[0]):
        return found, {**overrides, "model": found[0]}
    return found or [resolve_settings(overrides).model], dict(overrides)


def answer_many(
    job: "Callable[[str], Answer]",
    models: Sequence[str],
    command: str,
    time_limit: float,
    csv: Path | None,
    junit: Path | None,
    *,
    json: bool,
) -> None:
    """Ask each network, show a line each, write what was asked for; exit 1 unless all passed."""
    from cifar_cnn.analysis.many import answer_each
    from cifar_cnn.report.console import people_console, progress_bar, progress_console
    from cifar_cnn.report.many_networks import as_csv, as_junit, show_networks
    from cifar_cnn.storage.files import write_result

    for flag, path, suffix in (("--csv", csv, ".csv"), ("--junit", junit, ".xml")):
        if path is not None:
            check_result(flag, path, suffix)
    answers = []
    with progress_bar(progress_console(json=json), "networks") as progress:
        asked = progress.add_task("", total=len(models))
        for answer in answer_each(job, models, time_limit):
            answers.append(answer)
            progress.advance(asked)
    show_networks(people_console(json=json), answers)
    if csv is not None:
        write_result(csv, as_csv(answers))
    if junit is not None:
        write_result(junit, as_junit(answers, command))
    if json:
        print_json([answer.result for answer in answers])
    if not all(answer.passed for answer in answers):
        raise typer.Exit(1)
