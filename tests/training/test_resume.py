"""What a run goes on from, and that it then equals one that was never stopped."""

import functools
import re
import shutil

import pytest
import torch

import cifar_cnn
from cifar_cnn import plan_run
from cifar_cnn.errors import CheckpointError, RequestError, RunError, SettingsError
from cifar_cnn.storage.checkpoint import pack, read_checkpoint
from cifar_cnn.training.history import RunStarted, StepEnded
from cifar_cnn.training.plan import read_state

train = functools.partial(cifar_cnn.train, report=False)

VARIANTS = {
    "reference": {"recipe": "reference"},
    "reference in bf16": {"recipe": "reference", "precision": "bf16"},
    "best in bf16": {"recipe": "best", "precision": "bf16"},
    "compact": {"model": "compact", "recipe": "best", "ghost_batch_size": 3},
    "mixed": {"recipe": "best", "mixup": 0.3, "scheduler": "cosine"},
    "tuned in parts": {"recipe": "tuned", "ghost_batch_size": 3, "dropout": 0.1},
    "tuned with validation": {"recipe": "tuned", "val_size": 4},
}
"""Each has 4 or 5 steps in each of its 3 epochs."""


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory, make_image_folder):
    return make_image_folder(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def copy_of(tmp_path_factory):
    """Train once for each settings, up to so many steps, and copy the run."""

    @functools.cache
    def trained(settings, steps):
        until = stop_after(steps) if steps else {}
        return train(settings, tmp_path_factory.mktemp("made") / "run", **until).run

    return lambda settings, path, steps=None: shutil.copytree(trained(settings, steps), path)


@pytest.fixture
def run(small_settings, copy_of, tmp_path):
    """A finished run of two epochs."""
    return copy_of(small_settings(), tmp_path / "runs" / "run")


def stop_after(steps):
    """Return a listener that counts steps and a should_stop that asks it."""
    seen = []

    def listen(event):
        if isinstance(event, StepEnded):
            seen.append(event)

    return {"listeners": [listen], "should_stop": lambda: len(seen) >= steps}


def follow(plan, **options):
    return train(
        plan.settings,
        plan.directory,
        replace=plan.replace,
        checkpoint=plan.checkpoint,
        numbered=plan.numbered,
        **options,
    )


def resume(source, **given):
    events = []
    result = follow(plan_run(given, resume=source), listeners=[events.append])
    return result, [n for event in events if isinstance(event, RunStarted) for n in event.notes]


def assert_equal(one, other, where=""):
    """Compare all that a checkpoint holds, bit by bit, times apart."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            if key not in {"seconds", "images_per_second"}:
                assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{where}.{index}")
    else:
        assert one == other, where


def assert_same_run(one, other):
    for path in other.glob("*.pt"):
        if path.name != "previous.pt":
            assert_equal(dict(read_checkpoint(one / path.name)), dict(read_checkpoint(path)))
    assert (one / "training.log").read_text() == (other / "training.log").read_text()
    tables = [
        [line.split(",")[:-2] for line in (run / "metrics.csv").read_text().splitlines()]
        for run in (one, other)
    ]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_stopped_at_any_step_and_resumed_equals_one_never_stopped(
    small_settings, copy_of, tmp_path, variant
):
    """The first one after every step of two epochs, the others within and at the end of epochs."""
    settings = small_settings(epochs=3, **VARIANTS[variant])
    whole = copy_of(settings, tmp_path / "whole")
    an_epoch = read_checkpoint(whole / "last.pt").metrics["step"] // 3
    some = [1, an_epoch, an_epoch + 2, 2 * an_epoch, 2 * an_epoch + 3]
    stops = range(1, 2 * an_epoch + 1) if variant == "reference" else some
    given, before = settings.model_dump(), 0
    for stop in stops:
        plan = plan_run(given, output_dir=tmp_path, name="run", resume="auto")
        stopped = follow(plan, **stop_after(stop - before))
        assert (stopped.model_file, stopped.steps) == (None, stop)
        given, before = {}, stop
    result, _ = resume(tmp_path / "run")
    assert result.run == tmp_path / "run"
    assert_same_run(result.run, whole)


def test_the_best_network_goes_along_into_another_directory(small_settings, copy_of, tmp_path):
    settings = small_settings(epochs=3, **VARIANTS["tuned with validation"])
    copy_of(settings, tmp_path / "runs" / "one", steps=9)
    follow(plan_run({}, output_dir=tmp_path, name="two", resume=tmp_path / "runs" / "one"))
    assert_same_run(tmp_path / "two", copy_of(settings, tmp_path / "whole"))


def test_of_the_best_network_a_file_says_only_what_last_does_not(run):
    checkpoint = read_checkpoint(run / "last.pt")
    best = {"metrics": {"epoch": 0}, "state_dict": {}, "classes": ("other",)}
    training = checkpoint.training | {"best": best}
    state = read_state(checkpoint.model_copy(update={"training": training}), "last.pt")
    assert (state.best.metrics, state.best.classes) == ({"epoch": 0}, checkpoint.classes)
    del best["metrics"]
    with pytest.raises(CheckpointError, match="its progress is unreadable"):
        read_state(checkpoint.model_copy(update={"training": training}), "last.pt")


def test_weights_that_overflow_are_not_saved_over_good_ones(small_settings, tmp_path):
    settings = small_settings(scheduler="constant", lr=1e39)
    with pytest.raises(RunError, match="weights are not finite after epoch 0, step 1, learning"):
        train(settings, tmp_path / "run", **stop_after(1))
    assert not (tmp_path / "run" / "last.pt").exists()


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("tuned", "1 epoch becomes 2: the onecycle learning rate is laid over all 2 anew"),
        ("reference", "goes on as it was"),
    ],
)
def test_a_longer_schedule_is_told(small_settings, copy_of, tmp_path, recipe, said):
    run = copy_of(small_settings(epochs=1, recipe=recipe), tmp_path / "run")
    assert plan_run({"epochs": 2}, resume=run).finished is None
    result, (note,) = resume(run, epochs=2)
    assert len(result.history) == 2
    assert said in note


def test_fewer_epochs_than_begun_are_refused(small_settings, copy_of, tmp_path):
    copy_of(small_settings(epochs=3), tmp_path / "run", steps=11)
    with pytest.raises(SettingsError, match="has begun 3 epochs: epochs 2 is fewer"):
        plan_run({"epochs": 2}, resume=tmp_path / "run")


def test_other_images_are_refused(small_settings, copy_of, tmp_path):
    settings = small_settings()
    copy_of(settings, tmp_path / "run", steps=7)
    others = shutil.copytree(settings.data_dir, tmp_path / "others")
    next((others / "train" / "red").iterdir()).unlink()
    with pytest.raises(CheckpointError, match="36 of 3 classes there, 35 of 3 here"):
        resume(tmp_path / "run", data_dir=others)


def test_the_users_own_code_runs_only_when_it_is_named_again(small_settings, tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(
        "from pathlib import Path\nfrom torch import nn\n"
        "Path('imported').touch()\n"
        "def net(): return nn.Sequential(nn.Flatten(), nn.Linear(3072, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    train(small_settings(model="net.py:net"), "run", **stop_after(2))
    (tmp_path / "imported").unlink()
    with pytest.raises(CheckpointError, match=r"was trained with model net\.py:net: pass that"):
        plan_run({}, resume=tmp_path / "run")
    assert not (tmp_path / "imported").exists()
    assert len(resume(tmp_path / "run", model="net.py:net")[0].history) == 2


def spoil(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class TestDamage:
    @pytest.fixture
    def run(self, small_settings, copy_of, tmp_path):
        return copy_of(small_settings(epochs=3), tmp_path / "run", steps=11)

    def auto(self, run):
        return plan_run({}, output_dir=run.parent, name=run.name, resume="auto")

    @pytest.mark.parametrize(
        "damage", [spoil, lambda path: path.write_bytes(b""), lambda path: path.unlink()]
    )
    def test_auto_goes_on_from_the_previous_one_which_stays_and_says_so(
        self, small_settings, copy_of, run, tmp_path, damage
    ):
        before = (run / "previous.pt").read_bytes()
        damage(run / "last.pt")
        plan = self.auto(run)
        (note,) = plan.notes
        assert "last.pt" in note
        assert "going on from previous.pt, 2 epochs done" in note
        follow(plan, should_stop=lambda: True)
        assert (run / "previous.pt").read_bytes() == before
        follow(self.auto(run))
        assert_same_run(run, copy_of(small_settings(epochs=3), tmp_path / "whole"))

    def test_a_named_path_that_is_damaged_is_an_error_and_both_never_start_afresh(self, run):
        spoil(run / "last.pt")
        for path in (run, run / "last.pt"):
            with pytest.raises(CheckpointError, match=r"last\.pt is damaged"):
                plan_run({}, resume=path)
        spoil(run / "previous.pt")
        with pytest.raises(CheckpointError, match=r"last\.pt is damaged.*previous\.pt is damaged"):
            self.auto(run)


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1},
        {"epoch": "1"},
        {"batch": 10**9},
        {"batch": None},
        {"history": [{}]},
        {"history": [{"eval_correct": 10**400, "eval_samples": 1}]},
        {"history": 3},
        {"totals": {"loss": "much"}},
        {"totals": {"lost": 1.0}},
        {"totals": None},
        {"seconds": "long"},
        {"optimizer": {}},
        {"optimizer": {"state": {0: {"momentum_buffer": torch.ones(7)}}, "param_groups": []}},
        {"optimizer": {"state": {0: {"momentum_buffer": "fast"}}, "param_groups": []}},
    ],
)
def test_a_training_state_of_wrong_types_is_one_line(run, change):
    checkpoint = read_checkpoint(run / "last.pt")
    wrong = checkpoint.model_copy(update={"training": checkpoint.training | change})
    (run / "last.pt").write_bytes(pack(wrong))
    with pytest.raises(CheckpointError) as caught:
        resume(run, epochs=3)
    assert "\n" not in str(caught.value)


class TestPlan:
    def test_a_new_run_is_named_after_time_and_recipe_and_a_second_one_gets_a_number(
        self, small_settings, tmp_path
    ):
        plan = plan_run(small_settings(recipe="reference").model_dump(), output_dir=tmp_path)
        assert plan.directory.name.endswith("-reference")
        assert plan.checkpoint is None
        names = [follow(plan, should_stop=lambda: True).run.name for _ in range(3)]
        assert names == [plan.directory.name + end for end in ("", "-2", "-3")]

    def test_auto_needs_a_name_and_starts_where_there_is_nothing_to_resume(self, tmp_path):
        with pytest.raises(RequestError, match=r"^resume auto needs name"):
            plan_run({}, output_dir=tmp_path, resume="auto")
        (tmp_path / "run").mkdir()
        plan = plan_run({}, output_dir=tmp_path, name="run", resume="auto")
        assert plan.checkpoint is None
        assert plan.replace

    @pytest.mark.parametrize("way", [{"resume": "auto", "name": "run"}, {"resume": "run"}])
    def test_a_finished_run_that_goes_on_is_returned_as_it_is(self, run, way):
        before = {path: path.read_bytes() for path in run.iterdir()}
        result = follow(plan_run({}, output_dir=run.parent, **way))
        assert (result.run, result.model_file, len(result.history)) == (run, run / "model.pt", 2)
        assert {path: path.read_bytes() for path in run.iterdir()} == before

    def test_going_back_to_fewer_epochs_than_a_finished_run_has_is_something_left_to_do(self, run):
        result, _ = resume(run / "previous.pt", epochs=1)
        assert len(result.history) == len((run / "metrics.csv").read_text().splitlines()) - 1 == 1
        assert read_checkpoint(run / "model.pt").metrics["epoch"] == 0

    def test_a_lost_model_file_is_something_left_to_do(self, run):
        before = (run / "model.pt").read_bytes()
        (run / "model.pt").unlink()
        follow(plan_run({}, resume=run))
        assert (run / "model.pt").read_bytes() == before

    def test_a_file_may_be_named_and_another_directory_too(self, run, tmp_path):
        plan = plan_run(
            {"epochs": 3}, output_dir=tmp_path, name="other", resume=run / "previous.pt"
        )
        assert plan.directory == tmp_path / "other"

    def test_contradicting_settings_are_listed(self, run):
        with pytest.raises(SettingsError) as caught:
            plan_run({"lr": 0.5, "batch_size": 9}, resume=run)
        for words in ("batch_size is 8 there, 9 here", "lr is 0.2 there, 0.5 here"):
            assert words in str(caught.value)

    @pytest.mark.parametrize("name", ["none", "run/model.pt", "run/settings.toml"])
    def test_what_cannot_be_resumed_is_refused(self, run, name):
        with pytest.raises((CheckpointError, RunError), match=name.split("/")[-1]):
            plan_run({}, resume=run.parent / name)

    @pytest.mark.parametrize("name", ["a/b", "../b", "..", ".", "", "b/"])
    def test_a_name_that_is_a_path_is_refused(self, tmp_path, name):
        for each in (name, str(tmp_path / "b")):
            with pytest.raises(RequestError, match="is no plain name: output_dir says"):
                plan_run({}, output_dir=tmp_path / "runs", name=each)

    def test_an_explicit_auto_counts(self, run, monkeypatch):
        monkeypatch.setattr("cifar_cnn.training.plan.resolve_precision", lambda *_: "fp32")
        assert plan_run({"precision": "auto"}, resume=run).settings.precision == "fp32"
        monkeypatch.setattr("cifar_cnn.training.plan.resolve_precision", lambda *_: "bf16")
        with pytest.raises(SettingsError, match="precision is fp32 there, bf16 here"):
            plan_run({"precision": "auto"}, resume=run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name in ("nets", "others", "work"):
        (folder / name).mkdir()
        (folder / name / "zoo.py").write_text(
            f"# {name == 'others'}\n"
            "from torch import nn\n"
            "class Net(nn.Sequential):\n"
            "    def __init__(self):\n"
            "        super().__init__(nn.Flatten(), nn.Linear(3072, 3))\n"
        )
    return folder


class TestFiles:
    """A run with a network of a file, by the names that the file may have."""

    @pytest.fixture
    def runs(self, small_settings, folder, monkeypatch):
        monkeypatch.chdir(folder)
        runs = {folder / "one": "nets/zoo.py:Net", folder / "two": "nets/zoo.py"}
        for path, spec in runs.items():
            if not path.exists():
                train(small_settings(model=spec), path, **stop_after(2))
        return runs

    @pytest.mark.parametrize(
        ("where", "spec"),
        [
            (".", "nets/zoo.py:Net"),
            (".", "nets/../nets/zoo.py:Net"),
            (".", "work/zoo.py:Net"),
            (".", "{folder}/nets/zoo.py:Net"),
            (".", "nets/zoo.py"),
            (".", "nets.zoo:Net"),
            ("work", "../nets/zoo.py:Net"),
            ("work", "{folder}/nets/zoo.py:Net"),
            ("work", "../nets/zoo.py"),
            ("nets", "zoo:Net"),
            ("nets", "zoo.py"),
        ],
    )
    def test_one_code_is_the_same_by_any_name(self, runs, folder, monkeypatch, where, spec):
        monkeypatch.chdir(folder / where)
        spec = spec.format(folder=folder)
        for run in runs:
            assert plan_run({"model": spec}, resume=run).settings.model == spec

    @pytest.mark.parametrize("where", [".", "work"])
    def test_another_file_or_name_is_refused(self, runs, folder, monkeypatch, where):
        others = [f"{folder}/{each}" for each in ("others/zoo.py:Net", "nets/zoo.py:Other")]
        if where == ".":
            others += ["others/zoo.py", "others.zoo:Net"]
        monkeypatch.chdir(folder / where)
        for run, spec in runs.items():
            for other in others:
                with pytest.raises(SettingsError, match=f"model is {re.escape(spec)} there"):
                    plan_run({"model": other}, resume=run)


def test_a_run_with_class_weights_goes_on_to_the_bit_and_its_evaluation_is_unweighted(
    small_settings, tmp_path, make_image_folder
):
    data = make_image_folder(tmp_path / "unequal")
    for image in sorted((data / "train" / "red").iterdir())[2:]:
        image.unlink()
    settings = small_settings(data_dir=data, class_weights="balanced", ghost_batch_size=3)
    whole = train(settings, tmp_path / "whole").run
    stopped = train(settings, tmp_path / "stopped", **stop_after(5)).run
    resumed, notes = resume(stopped)
    assert_same_run(resumed.run, whole)
    assert notes == ["class weights: blue 0.722, green 0.722, red 4.33"]
    plain = train(small_settings(data_dir=data, ghost_batch_size=3), tmp_path / "plain").run
    with pytest.raises(AssertionError):
        assert_same_run(whole, plain)
    measured = cifar_cnn.evaluate(whole / "model.pt")
    assert measured.loss == read_checkpoint(whole / "last.pt").metrics["eval_loss"]
