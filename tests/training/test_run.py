import contextlib
import csv
import functools
import shutil
import sys
import tomllib
import types

import pytest
import torch
from PIL import Image

import cifar_cnn
from cifar_cnn import dry_run, evaluate, plan_run
from cifar_cnn.data.dataset import REFERENCE, measure
from cifar_cnn.data.load import load_train
from cifar_cnn.errors import ModelError, RunError, SettingsError
from cifar_cnn.settings import validate
from cifar_cnn.storage.checkpoint import read_checkpoint
from cifar_cnn.training import trainer
from cifar_cnn.training.events import EpochEnded, RunEnded, RunStarted, StepEnded
from cifar_cnn.training.run import Run
from cifar_cnn.training.run_directory import RunDirectory
from cifar_cnn.training.state import state_of

train = functools.partial(cifar_cnn.train, report=False)  # which tests/report looks at

CPU = torch.device("cpu")
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


def rows_of(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def without_times(run):
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")}
        for row in rows_of(run)
    ]


def weights(path):
    return read_checkpoint(path).state_dict


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_a_run_directory_holds_what_the_contract_says_and_is_not_replaced(small_settings, tmp_path):
    result = train(small_settings(), tmp_path / "run")
    assert {path.name for path in result.run.iterdir()} == FILES
    assert len(rows_of(result.run)) == 2
    stored = validate(tomllib.loads((result.run / "settings.toml").read_text()))
    assert stored == small_settings(threads=torch.get_num_threads())
    log = (result.run / "training.log").read_text().splitlines()
    assert log[0].startswith("EPOCH:0 Loss=")
    assert log[1].startswith("Test set: Average loss: ")
    assert log[-1] == "Model saved in .pt format to model.pt"
    assert (result.run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert equal(weights(result.run / "model.pt"), weights(result.run / "last.pt"))
    assert read_checkpoint(result.run / "previous.pt").metrics["epoch"] == 0
    before = {path: path.read_bytes() for path in result.run.iterdir()}
    with pytest.raises(RunError, match=r"another directory, or resume .*, or replace to"):
        train(small_settings(epochs=1), result.run)
    with pytest.raises(RunError, match="exists"):
        plan_run({}, output_dir=tmp_path, name="run")
    assert {path: path.read_bytes() for path in result.run.iterdir()} == before


def test_with_validation_the_model_is_the_best_epoch(small_settings, tmp_path):
    result = train(small_settings(val_size=9, epochs=4, lr=0.5), tmp_path / "run")
    rows = rows_of(result.run)
    assert {row["eval_split"] for row in rows} == {"val"}
    best = max(rows, key=lambda row: (float(row["eval_accuracy"]), -float(row["eval_loss"])))
    for name in ("model.pt", "best.pt"):
        assert read_checkpoint(result.run / name).metrics["epoch"] == int(best["epoch"])
    assert result.eval.accuracy == float(best["eval_accuracy"])


def test_training_with_validation_never_reads_the_test_images(small_settings, tmp_path):
    settings = small_settings(val_size=9)
    for image in (settings.data_dir / "test").rglob("*.png"):
        image.write_bytes(b"unreadable")
    train(settings, tmp_path / "run")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_evaluating_the_model_gives_the_last_epochs_figures_to_the_last_digit(
    small_settings, tmp_path, precision
):
    run = train(small_settings(precision=precision), tmp_path / "run").run
    last = rows_of(run)[-1]
    result = evaluate(run / "model.pt")
    assert repr(result.accuracy) == last["eval_accuracy"]
    assert repr(result.loss) == last["eval_loss"]


def test_the_same_seed_gives_the_same_run_and_another_seed_another(small_settings, tmp_path):
    runs = [
        train(small_settings(recipe="reference", seed=seed), tmp_path / f"run{index}").run
        for index, seed in enumerate((1, 1, 2))
    ]
    assert without_times(runs[0]) == without_times(runs[1])
    assert equal(weights(runs[0] / "model.pt"), weights(runs[1] / "model.pt"))
    assert not equal(weights(runs[0] / "model.pt"), weights(runs[2] / "model.pt"))


def test_events_tell_the_whole_story(small_settings, tmp_path):
    events = []
    train(small_settings(), tmp_path / "run", listeners=[events.append])
    assert isinstance(events[0], RunStarted)
    assert [type(e) for e in events[1:]] == ([StepEnded] * 5 + [EpochEnded]) * 2 + [RunEnded]
    assert events[-1].finished


@pytest.mark.parametrize("model", ["nope", "nope.py:Net"])
def test_a_network_that_is_not_there_is_refused_before_images_are_looked_for(
    small_settings, tmp_path, model
):
    settings = small_settings(model=model, dataset="folder", data_dir=tmp_path / "none")
    with pytest.raises(ModelError, match=r"unknown model 'nope'|nope\.py does not exist"):
        dry_run(settings)


def test_a_dry_run_writes_nothing(small_settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    assert 0.1 < dry_run(small_settings()) < 10
    assert set(tmp_path.rglob("*")) == before


def test_starting_again_replaces_the_files(small_settings, tmp_path):
    train(small_settings(val_size=9), tmp_path / "run")
    run = train(small_settings(epochs=1), tmp_path / "run", replace=True).run
    assert {path.name for path in run.iterdir()} == FILES - {"previous.pt"}
    assert len(rows_of(run)) == 1


def test_a_failed_start_keeps_the_run_that_was_there(small_settings, tmp_path):
    run = train(small_settings(), tmp_path / "run").run
    with pytest.raises(SettingsError, match="leaves no training image"):
        train(small_settings(val_size=99), run, replace=True)
    assert (run / "model.pt").exists()


def test_a_diverging_run_stops_at_the_step_and_saves_nothing(small_settings, tmp_path):
    settings = small_settings(scheduler="constant", lr=1e30)
    with pytest.raises(RunError, match=r"loss is (nan|inf) at epoch 0, step [1-4], learning rate"):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_reading_the_totals_seldom_changes_nothing(small_settings, tmp_path, monkeypatch):
    """As on CUDA, where every reading makes the device wait."""
    settings, seen = small_settings(epochs=2), []
    often = train(settings, tmp_path / "often").run
    monkeypatch.setattr(trainer, "STEPS_BETWEEN_READINGS", {"cpu": 2})
    seldom = train(settings, tmp_path / "seldom", listeners=[seen.append]).run
    assert without_times(seldom) == without_times(often)
    assert equal(weights(seldom / "model.pt"), weights(often / "model.pt"))
    assert [e.batch for e in seen if isinstance(e, StepEnded)] == [1, 3, 1, 3]
    with pytest.raises(RunError, match=r"loss is (nan|inf) at epoch 0, step [1-4], learning rate"):
        train(small_settings(scheduler="constant", lr=1e30), tmp_path / "diverging")
    assert not (tmp_path / "diverging" / "last.pt").exists()


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(
    small_settings, tmp_path, monkeypatch
):
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer, self.steps = nn.Linear(3072, 3), 0\n"
        "    def forward(self, images):\n"
        "        self.steps += self.training\n"
        "        return self.layer(images.flatten(1)) / (self.steps < 8)\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"at epoch 1, step 7, learning rate 0\."):
        train(small_settings(model="net.py:Net"), tmp_path / "run")
    last = read_checkpoint(tmp_path / "run" / "last.pt")
    assert last.metrics["epoch"] == 0
    assert all(bool(torch.isfinite(value).all()) for value in last.state_dict.values())


def test_a_loss_that_is_not_finite_names_the_image_that_gives_it(small_settings, tmp_path, network):
    settings = small_settings(
        model=network("return self.norm(logits)", "self.norm = nn.BatchNorm1d(3)"),
        flip=0,
        shift=0,
    )
    Image.new("RGB", (32, 32), "white").save(settings.data_dir / "train" / "red" / "007.png")
    text = (tmp_path / "net.py").read_text()
    broken = "images[images.std((1, 2, 3)) < 0.3] *= torch.nan"  # the white one
    (tmp_path / "net.py").write_text(
        text.replace("self.steps += ", f"images = images.clone(); {broken}; self.steps += ")
    )
    with pytest.raises(
        RunError,
        match=r"loss is nan at epoch 0, step \d, learning rate \S+, of training image 31 "
        r"\(.*red/007\.png\): nothing was saved .* or leave out what is wrong with such",
    ):
        train(settings, tmp_path / "run")


def test_a_network_that_does_not_fit_the_classes_is_refused_before_anything_is_written(
    small_settings, tmp_path, monkeypatch
):
    (tmp_path / "net.py").write_text("from torch import nn\ndef net(): return nn.Flatten()\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"needs \(1, 3\)"):
        train(small_settings(model="net.py:net"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.steps = nn.Linear(3072, 3), 0
        {init}
    def forward(self, images):
        self.steps += self.training
        return self.after(self.layer(images.flatten(1)))
    def after(self, logits):
        {after}
    {methods}
"""


@pytest.fixture
def network(tmp_path, monkeypatch):
    """Write a network of the user's own, and return what names it."""
    monkeypatch.chdir(tmp_path)

    def write(after="return logits", init="", methods=""):
        (tmp_path / "net.py").write_text(NETWORK.format(after=after, init=init, methods=methods))
        return "net.py:Net"

    return write


def test_a_network_that_fails_only_in_training_is_one_line(small_settings, tmp_path, network):
    model = network("assert self.steps < 2; return logits")
    with pytest.raises(RunError, match="at epoch 0, step 1: the network fails on a training"):
        train(small_settings(model=model), tmp_path / "run")


def test_a_network_that_returns_a_tuple_in_training_is_one_line(small_settings, tmp_path, network):
    model = network("return (logits, logits) if self.training else logits")
    message = r"^(at epoch 0, step 0: )?in training the network returns tuple, not one tensor: have"
    with pytest.raises(RunError, match=message):
        train(small_settings(model=model), tmp_path / "run")
    with pytest.raises(RunError, match=message):
        dry_run(small_settings(model=model))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            {"methods": "def get_extra_state(self): return {'steps': self.steps}"},
            "cannot be saved: _extra_state of its state dict is dict, not a tensor",
        ),
        (
            {"init": "self.register_buffer('phase', torch.zeros(2, dtype=torch.complex64))"},
            "cannot be saved: .*ComplexFloatStorage",
        ),
    ],
    ids=["extra state", "complex"],
)
def test_a_network_that_cannot_be_saved_is_refused_before_anything_is_written(
    small_settings, tmp_path, network, parts, said
):
    settings = small_settings(model=network(**parts))
    with pytest.raises(ModelError, match=said):
        dry_run(settings)
    with pytest.raises(ModelError, match=said):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_last_batch_of_one_image_is_left_out_whatever_the_network(
    small_settings, tmp_path, network
):
    normalized = network("return self.norm(logits)", init="self.norm = nn.BatchNorm1d(3)")
    for model, size in ((normalized, 32), ("baseline", 8)):
        settings = small_settings(model=model, batch_size=7, input_size=size)
        result = train(settings, tmp_path / model.partition(".")[0])
        assert result.steps == 2 * 5  # of 36 images


@pytest.mark.parametrize(("images", "batch_size", "steps"), [(35, 8, 5), (3, 8, 1), (3, 1, 3)])
def test_no_other_rest_is_left_out(small_settings, tmp_path, images, batch_size, steps):
    settings = small_settings(limit_train=images, batch_size=batch_size, epochs=1)
    assert train(settings, tmp_path / "run").steps == steps


def notes_of(settings, directory):
    events = []
    train(settings, directory, listeners=[events.append])
    said = [note for event in events for note in getattr(event, "notes", ())]
    said = [note for note in said if "processor time" not in note]  # of a busy machine
    dry = []
    dry_run(settings, dry.append)
    assert dry == said
    return said


def test_outputs_that_sum_to_one_are_told_once(small_settings, tmp_path, network):
    model = network("return logits.softmax(1)")
    (note,) = notes_of(small_settings(model=model), tmp_path / "run")
    assert "outputs sum to one, as after a softmax" in note
    assert "return logits instead" in note
    assert notes_of(small_settings(model=network()), tmp_path / "other") == []


def test_a_data_set_of_one_class_is_told(small_settings, tmp_path):
    settings = small_settings()
    for name in ("green", "red"):
        for split in ("train", "test"):
            shutil.rmtree(settings.data_dir / split / name)
    (note,) = notes_of(settings, tmp_path / "run")
    assert note == "all training images are of one class: there is nothing to tell apart"


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
    settings = small_settings(ghost_batch_size=0, dropout=0.2)
    plain, failing = (Run(settings, CPU).trainer for _ in range(2))
    failing.update.captures = True
    rows = [[row.train_loss for row in each.epochs()] for each in (plain, failing)]
    assert rows[0] == rows[1]
    assert equal(plain.model.state_dict(), failing.model.state_dict())
    assert plain.update.notes == []
    (note,) = failing.update.notes
    assert note in failing.notes
    assert note.startswith(
        "a training step cannot be captured as a CUDA graph, so this run goes on"
    )
    assert "\n" not in note


def test_a_trainer_whose_images_are_freed_still_says_what_it_came_to(small_settings, tmp_path):
    run = Run(small_settings(epochs=1), CPU)
    with RunDirectory(tmp_path / "run", replace=False) as directory:
        result = run.fit(directory)
    assert run.trainer.batches.images.numel() == 0  # freed before the report is made
    assert run.trainer.step == result.steps == 5
    assert list(run.trainer.epochs()) == []
    saved = read_checkpoint(tmp_path / "run" / "last.pt").training
    assert state_of(run.trainer, result.history, None).pack().keys() == saved.keys()


def test_a_folder_is_normalized_by_its_training_images_everywhere(small_settings, tmp_path):
    settings = small_settings(val_size=9, epochs=1)
    train_images, _ = load_train(settings)
    expected = measure(train_images.images)
    shown = []

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3072, 3)

        def see_images(self, images):
            shown.append(images)

        def forward(self, images):
            if self.training:
                shown.append(images)
            return self.layer(images.flatten(1))

    module = types.ModuleType("measured")
    module.Net = Net
    sys.modules["measured"] = module
    settings = small_settings(val_size=9, epochs=1, batch_size=27, model="measured:Net", shift=0)
    checkpoint = read_checkpoint(train(settings, tmp_path / "run").model_file)
    assert checkpoint.normalization == expected
    assert checkpoint.settings.normalization == "dataset"
    for images in shown:
        channels = images.transpose(0, 1).flatten(1)
        assert channels.mean(dim=1).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
        assert channels.std(dim=1, correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert len(shown) == 3  # by see_images, the trial step, and the step


def test_a_resumed_run_keeps_its_mean_and_deviation(small_settings, tmp_path):
    settings = small_settings()
    stopped = Run(settings, CPU, should_stop=lambda: True)
    with RunDirectory(tmp_path / "run", replace=False) as directory:
        stopped.fit(directory)
    before = read_checkpoint(tmp_path / "run" / "last.pt")
    image = next((settings.data_dir / "train" / "red").iterdir())
    Image.new("RGB", (32, 32)).save(image)
    plan = plan_run({}, resume=tmp_path / "run")
    model = train(plan.settings, plan.directory, checkpoint=plan.checkpoint).model_file
    assert read_checkpoint(model).normalization == before.normalization != REFERENCE
