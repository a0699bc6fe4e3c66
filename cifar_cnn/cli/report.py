"""`cifar-cnn report`: a run's pictures and its report.html."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cifar_cnn.cli.options import OWN, OutputDir, RunArgument, command, complete_run
from cifar_cnn.errors import RequestError
from cifar_cnn.report.console import say, warn
from cifar_cnn.storage.naming import RUNS, find_run


@command(model=OWN, model_arg=OWN, data_dir=OWN, device="")
def report(
    run: RunArgument,
    compare: Annotated[
        list[Path] | None, typer.Option(metavar="RUN", autocompletion=complete_run)
    ] = None,
    reference: bool = False,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE.md")] = None,
    exist_ok: bool = False,
    output_dir: OutputDir = RUNS,
    *,
    console: Console,
    overrides: dict[str, Any],
) -> tuple[Any, int]:
    """A run as pictures and as one self-contained page, in the run's directory.

    Options:
        run: Run, finished or not: name or folder.
        compare: Another run, for learning curves side by side; repeatable.
        reference: Compare with the reference program's published log too.
        markdown: Write the same as Markdown for GitHub, its pictures in FILE_files/ beside it.
        exist_ok: Replace FILE.md and its pictures if they exist.

    Examples:
        cifar-cnn report first
        cifar-cnn report first --compare second --reference
        cifar-cnn report first --markdown hand-in.md
    """
    from cifar_cnn.report.progress import Display
    from cifar_cnn.report.run_report import write_report

    if exist_ok and markdown is None:
        raise RequestError("--exist-ok replaces FILE.md: give --markdown FILE.md too")
    with Display(console) as progress:
        written = write_report(
            find_run(run, output_dir),
            compare=[find_run(each, output_dir) for each in compare or ()],
            reference=reference,
            markdown=markdown,
            exist_ok=exist_ok,
            overrides=overrides,
            progress=progress,
        )
    for note in written.notes:
        warn(console, f"left out: {note}")
    say(console, *(f"saved {path}" for path in (written.report, written.markdown) if path))
    return written, 0
