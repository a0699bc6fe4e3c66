"""What a run leaves behind, when it stops, and what it tells."""

import contextlib
import csv
import functools
import re
import shutil
import tomllib
import types

import pytest
import torch
from PIL import Image
from torch import nn

import cifar_cnn
from cifar_cnn import dry_run, evaluate, plan_run
from cifar_cnn.data.dataset import REFERENCE, measure
from cifar_cnn.data.load import load_train
from cifar_cnn.errors import ModelError, RunError, SettingsError
from cifar_cnn.settings import resolve_settings, validate
from cifar_cnn.storage.checkpoint import read_checkpoint
from cifar_cnn.training import trainer
from cifar_cnn.training.distributed import ALONE
from cifar_cnn.training.history import EpochEnded, RunEnded, RunStarted, StepEnded
from cifar_cnn.training.run import Run
from cifar_cnn.training.run_directory import open_run_directory

train = functools.partial(cifar_cnn.train, report=False)  # which tests/report looks at

FILES = {
    "settings.toml",
    "environment.json",
    "metrics.csv",
    "training.log",
    "curves.png",
    "last.pt",
    "previous.pt",
    "model.pt",
    ".lock",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory, make_image_folder):
    """The settings of a run of two epochs, its result and its events."""
    folder = tmp_path_factory.mktemp("plain")
    values = {"dataset": "folder", "data_dir": make_image_folder(folder / "images"), "epochs": 2}
    settings = resolve_settings(values | {"batch_size": 8, "precision": "fp32"})
    events = []
    return settings, train(settings, folder / "run", listeners=[events.append]), events


def rows_of(run):
    """Return the rows of metrics.csv without times."""
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    times = ("seconds", "images_per_second")
    return [{name: value for name, value in row.items() if name not in times} for row in rows]


def assert_same(one, other):
    assert rows_of(one) == rows_of(other)
    assert are_equal(*(read_checkpoint(each / "model.pt").state_dict for each in (one, other)))


def are_equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_a_run_directory_holds_what_the_contract_says_and_is_not_replaced(plain):
    settings, result, _ = plain
    run = result.run
    assert {path.name for path in run.iterdir()} == FILES
    assert len(rows_of(run)) == 2
    stored = validate(tomllib.loads((run / "settings.toml").read_text()))
    assert stored == settings.model_copy(update={"threads": torch.get_num_threads()})
    log = (run / "training.log").read_text().splitlines()
    assert log[0].startswith("EPOCH:0 Loss=")
    assert log[1].startswith("Test set: Average loss: ")
    assert log[-1] == "Model saved in .pt format to model.pt"
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    model, last, previous = (
        read_checkpoint(run / f"{name}.pt") for name in ("model", "last", "previous")
    )
    assert are_equal(model.state_dict, last.state_dict)
    assert previous.metrics["epoch"] == 0
    before = {path: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(RunError, match=r"another directory, or resume .*, or replace to"):
        train(settings, run)
    with pytest.raises(RunError, match="exists"):
        plan_run({}, output_dir=run.parent, name=run.name)
    with pytest.raises(SettingsError, match="leaves no training image"):
        train(settings.model_copy(update={"val_size": 99}), run, replace=True)
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_events_tell_the_whole_story(plain):
    _, _, events = plain
    assert isinstance(events[0], RunStarted)
    assert [type(e) for e in events[1:]] == ([StepEnded] * 5 + [EpochEnded]) * 2 + [RunEnded]
    assert events[-1].finished


def test_with_validation_the_model_is_the_best_epoch_and_the_test_images_are_never_read(
    small_settings, tmp_path
):
    settings = small_settings(val_size=9, epochs=4, lr=0.5)
    for image in (settings.data_dir / "test").rglob("*.png"):
        image.write_bytes(b"unreadable")
    result = train(settings, tmp_path / "run")
    rows = rows_of(result.run)
    assert {row["eval_split"] for row in rows} == {"val"}
    best = max(rows, key=lambda row: (float(row["eval_accuracy"]), -float(row["eval_loss"])))
    for name in ("model.pt", "best.pt"):
        assert read_checkpoint(result.run / name).metrics["epoch"] == int(best["epoch"])
    assert result.eval.accuracy == float(best["eval_accuracy"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_evaluating_the_model_gives_the_last_epochs_figures_to_the_last_digit(
    plain, tmp_path, precision
):
    settings, result, _ = plain
    if precision == "bf16":
        result = train(settings.model_copy(update={"precision": "bf16"}), tmp_path / "run")
    last, measured = rows_of(result.run)[-1], evaluate(result.model_file)
    assert (repr(measured.accuracy), repr(measured.loss)) == (
        last["eval_accuracy"],
        last["eval_loss"],
    )


def test_starting_again_replaces_the_files_and_gives_the_same_unless_the_seed_is_another(
    plain, tmp_path
):
    settings, result, _ = plain
    other = settings.model_copy(update={"seed": 2, "val_size": 9})
    assert (train(other, tmp_path / "run").run / "best.pt").exists()
    with pytest.raises(AssertionError):
        assert_same(tmp_path / "run", result.run)
    train(settings, tmp_path / "run", replace=True)
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    assert_same(tmp_path / "run", result.run)


@pytest.mark.parametrize("model", ["nope", "nope.py:Net"])
def test_a_network_that_is_not_there_is_refused_before_images_are_looked_for(
    small_settings, tmp_path, model
):
    with pytest.raises(ModelError, match=r"unknown model 'nope'|nope\.py does not exist"):
        dry_run(small_settings(model=model, data_dir=tmp_path / "none"))


@pytest.mark.parametrize("between", [1, 2])
def test_reading_the_totals_seldom_as_on_cuda_changes_nothing_nor_hides_divergence(
    plain, tmp_path, monkeypatch, between
):
    settings, result, _ = plain
    monkeypatch.setattr(trainer, "STEPS_BETWEEN_READINGS", {"cpu": between})
    diverging = settings.model_copy(update={"scheduler": "constant", "lr": 1e30})
    with pytest.raises(RunError, match=r"loss is (nan|inf) at epoch 0, step [1-4], learning rate"):
        train(diverging, tmp_path / "diverging")
    assert not (tmp_path / "diverging" / "last.pt").exists()
    if between == 2:
        events = []
        assert_same(train(settings, tmp_path / "run", listeners=[events.append]).run, result.run)
        assert [e.batch for e in events if isinstance(e, StepEnded)] == [1, 3, 1, 3]


class Net(nn.Module):
    """A network of the user's own, which counts its training steps."""

    def __init__(self):
        super().__init__()
        self.layer, self.steps = nn.Linear(3072, 3), 0

    def forward(self, images):
        self.steps += self.training
        return self.layer(images.flatten(1))


class Softmax(Net):
    def forward(self, images):
        return super().forward(images).softmax(1)


class Failing(Net):
    def forward(self, images):
        answer = super().forward(images)
        assert self.steps < 2
        return answer


class Exploding(Net):
    def forward(self, images):
        return super().forward(images) / (self.steps < 8)


class Normalized(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, images):
        return self.norm(super().forward(images))


class Picky(Normalized):
    def forward(self, images):
        images = images.clone()
        images[images.std((1, 2, 3)) < 0.3] *= torch.nan  # a white one
        return super().forward(images)


def own(name):
    return f"{__name__}:{name}"


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(small_settings, tmp_path):
    with pytest.raises(RunError, match=r"at epoch 1, step 7, learning rate 0\."):
        train(small_settings(model=own("Exploding")), tmp_path / "run")
    last = read_checkpoint(tmp_path / "run" / "last.pt")
    assert last.metrics["epoch"] == 0
    assert all(bool(torch.isfinite(value).all()) for value in last.state_dict.values())


def test_a_loss_that_is_not_finite_names_the_image_that_gives_it(small_settings, tmp_path):
    settings = small_settings(model=own("Picky"), flip=0, shift=0)
    Image.new("RGB", (32, 32), "white").save(settings.data_dir / "train" / "red" / "007.png")
    with pytest.raises(
        RunError,
        match=r"loss is nan at epoch 0, step \d, learning rate \S+, of training image 31 "
        r"\(.*red/007\.png\): nothing was saved .* or leave out what is wrong with such",
    ):
        train(settings, tmp_path / "run")


def test_a_network_that_fails_only_in_training_is_one_line(small_settings, tmp_path):
    with pytest.raises(RunError, match="at epoch 0, step 1: the network fails on a training"):
        train(small_settings(model=own("Failing")), tmp_path / "run")


@pytest.mark.parametrize(
    ("model", "images", "batch_size", "steps"),
    [
        ("Normalized", 36, 7, 5),
        ("baseline", 36, 7, 5),
        ("baseline", 35, 8, 5),
        ("baseline", 3, 8, 1),
        ("baseline", 3, 1, 3),
    ],
)
def test_a_last_batch_of_one_image_is_left_out_and_no_other_rest(
    small_settings, tmp_path, model, images, batch_size, steps
):
    values = {"limit_train": images, "batch_size": batch_size, "epochs": 1}
    settings = small_settings(model=model if model == "baseline" else own(model), **values)
    assert train(settings, tmp_path / "run").steps == steps


def notes_of(settings, directory):
    events, dry = [], []
    train(settings, directory, listeners=[events.append])
    notes = [note for event in events for note in getattr(event, "notes", ())]
    notes = [note for note in notes if "processor time" not in note]  # of a busy machine
    dry_run(settings, dry.append)
    assert dry == notes
    return notes


def test_what_makes_training_hopeless_is_told_once(small_settings, tmp_path):
    (note,) = notes_of(small_settings(model=own("Softmax")), tmp_path / "softmax")
    assert "outputs sum to one, as after a softmax" in note
    assert "return logits instead" in note
    assert notes_of(small_settings(model=own("Net")), tmp_path / "plain") == []
    settings = small_settings()
    for name in ("green", "red"):
        for split in ("train", "test"):
            shutil.rmtree(settings.data_dir / split / name)
    (note,) = notes_of(settings, tmp_path / "one class")
    assert note == "all training images are of one class: there is nothing to tell apart"


@pytest.mark.parametrize(
    ("quota", "processor", "threads", "cause"),
    [
        ("", 10, 1, "50% of the processor time it could use: other programs use the cores"),
        ("max 100000\n", 30, 4, "38% of the processor time it could use: other programs use"),
        ("400000 100000\n", 30, 4, "38% of the processor time it could use: other programs use"),
        ("150000 100000\n", 30, 4, "38% .* could use: a CPU quota allows 1.5 of 4 cores"),
        ("", 18, 1, None),
    ],
)
def test_a_run_that_gets_too_little_of_its_threads_time_says_why(
    monkeypatch, tmp_path, quota, processor, threads, cause
):
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(trainer, "QUOTA", tmp_path / "cpu.max")
    notes = trainer.describe_lost_time(3, 20.0, processor, threads)
    assert len(notes) == (cause is not None)
    for note in notes:
        assert re.match(f"in epoch 3 this run had {cause}", note)
    assert trainer.describe_lost_time(3, 5.0, 0.1, threads) == []  # too short to tell


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_step_that_cannot_be_captured_is_taken_without_a_graph(
    small_settings, monkeypatch, where
):
    """Here before a warm-up, as there is no CUDA, or else after it."""
    if where == "after":
        stream = types.SimpleNamespace(wait_stream=lambda _: None)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
        monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())

        def capture():
            raise RuntimeError("operation not permitted when stream is capturing")

        monkeypatch.setattr(torch.cuda, "CUDAGraph", capture)
    settings = small_settings(ghost_batch_size=0, dropout=0.2, device="cpu")
    plain, failing = (Run(settings, ALONE).trainer for _ in range(2))
    failing.update.captures = True
    rows = [[row.train_loss for row in each.epochs()] for each in (plain, failing)]
    assert rows[0] == rows[1]
    assert are_equal(plain.model.state_dict(), failing.model.state_dict())
    assert plain.notes == []
    (note,) = failing.notes
    assert note.startswith(
        "a training step cannot be captured as a CUDA graph, so this run goes on"
    )
    assert "\n" not in note


def test_a_trainer_whose_images_are_freed_still_says_what_it_came_to(small_settings, tmp_path):
    run = Run(small_settings(epochs=1), ALONE)
    with open_run_directory(tmp_path / "run") as directory:
        result = run.fit(directory)
    assert run.trainer.batches.images.numel() == 0  # freed before the report is made
    assert run.trainer.step == result.steps == 5
    assert list(run.trainer.epochs()) == []
    saved = read_checkpoint(tmp_path / "run" / "last.pt").training
    assert {*run.trainer.state(), "history"} == saved.keys()


seen_images = []


class Seeing(Net):
    def see_images(self, images):
        seen_images.append(images)

    def forward(self, images):
        if self.training:
            seen_images.append(images)
        return super().forward(images)


def test_a_folder_is_normalized_by_its_training_images_everywhere(small_settings, tmp_path):
    settings = small_settings(val_size=9, epochs=1, batch_size=27, model=own("Seeing"), shift=0)
    train_images, _ = load_train(settings)
    checkpoint = read_checkpoint(train(settings, tmp_path / "run").model_file)
    assert checkpoint.normalization == measure(train_images.images)
    assert checkpoint.settings.normalization == "dataset"
    for images in seen_images:
        channels = images.transpose(0, 1).flatten(1)
        assert channels.mean(dim=1).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
        assert channels.std(dim=1, correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert len(seen_images) == 3  # by see_images, the trial step, and the step


def test_a_resumed_run_keeps_its_mean_and_deviation(small_settings, tmp_path):
    settings = small_settings()
    train(settings, tmp_path / "run", should_stop=lambda: True)
    before = read_checkpoint(tmp_path / "run" / "last.pt")
    image = next((settings.data_dir / "train" / "red").iterdir())
    Image.new("RGB", (32, 32)).save(image)
    plan = plan_run({}, resume=tmp_path / "run")
    model = train(plan.settings, plan.directory, checkpoint=plan.checkpoint).model_file
    assert read_checkpoint(model).normalization == before.normalization != REFERENCE
