import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from cifar_cnn import evaluate, train, write_report
from cifar_cnn.report.loading import LoadingProgress


def shown(*, terminal, width=80):
    """Return what is printed while 60,000 images are decoded, and what a stop at half leaves."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=width, highlight=False)
    with LoadingProgress(console) as progress:
        for done in (0, 30_000):
            progress("decoding", Path("data/train"), done, 60_000)
            if progress.bar:
                progress.bar.refresh()
    half = text.getvalue()
    for done in (0, 60_000):
        progress("decoding", Path("data/val"), done, 60_000)
    return half, text.getvalue(), progress


def test_elsewhere_than_on_a_terminal_it_is_one_line_a_folder():
    _, whole, _ = shown(terminal=False)
    assert whole == ("decoding 60,000 images in data/train\ndecoding 60,000 images in data/val\n")


@pytest.mark.parametrize("width", [40, 80])
def test_a_terminal_shows_how_many_are_done_and_the_time_left_and_is_left_clean(width):
    half, _, progress = shown(terminal=True, width=width)
    assert "30000/60000" in half
    assert "left" in half
    assert "\x1b[?25h" in half  # the cursor is there again, also where an error ends it
    assert progress.bar is None


def test_a_download_says_how_large_it_is_and_where_it_goes():
    for terminal in (False, True):
        text = io.StringIO()
        console = Console(file=text, force_terminal=terminal, width=80, highlight=False)
        with LoadingProgress(console) as progress:
            for done in (0, 85_000_000):
                progress("downloading", Path("data/archive.tar.gz"), done, 170_498_071)
                if progress.bar:
                    progress.bar.refresh()
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())
        assert "downloading 170.50 MB to data/archive.tar.gz\n" in plain
        assert ("loading 85.0/170.5 MB" in plain) == terminal
        assert all(len(line) < 40 for line in re.split(r"[\r\n]", plain) if "MB to" not in line)


def test_a_few_small_images_are_not_worth_a_word_and_a_few_large_ones_are(monkeypatch):
    text = io.StringIO()
    progress = LoadingProgress(Console(file=text, highlight=False))
    for done in (0, 20, 36):
        progress("decoding", Path("small"), done, 36)
    assert text.getvalue() == ""
    seconds = iter((0.0, 0.0, 5.0, 10.0))
    monkeypatch.setattr("cifar_cnn.report.loading.time.monotonic", lambda: next(seconds))
    for done in (0, 20, 36):
        progress("decoding", Path("large"), done, 36)
    assert text.getvalue() == "decoding 36 images in large\n"


def test_beside_a_document_there_is_no_bar():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, quiet=True)
    with LoadingProgress(console) as progress:
        for done in (0, 30_000):
            progress("decoding", Path("data/train"), done, 60_000)
    assert text.getvalue() == ""


def test_the_bar_is_no_wider_than_a_narrow_window():
    """So a window that is made narrower keeps no ends of its lines."""
    half, _, _ = shown(terminal=True, width=80)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]", half)]
    assert "30000/60000" in half
    assert max(map(len, lines)) < 40


def test_training_evaluation_and_report_tell_what_they_decode(
    small_settings, image_folder, tmp_path, monkeypatch
):
    told = []

    def loading(what, folder, done, total):
        assert what == "decoding"
        if done == total:
            told.append((folder.name, total))

    settings = small_settings(epochs=1)
    run = train(settings, tmp_path / "run", report=False, loading=loading).run
    monkeypatch.setenv("CIFAR_CNN_CACHE", str(tmp_path / "empty"))
    evaluate(run / "model.pt", loading=loading)
    monkeypatch.setenv("CIFAR_CNN_CACHE", str(tmp_path / "empty too"))
    write_report(run, loading=loading)
    assert told == [("train", 36), *[("test", 12)] * 3, ("train", 36)]
