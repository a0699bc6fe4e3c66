"""Runs on folders of images, evaluated on folders of another layout or with other files."""

import json
import shutil

import pytest

from cifar_cnn import evaluate, plan_run, train
from cifar_cnn.errors import CheckpointError, DataError


@pytest.fixture
def classes_alone(image_folder, tmp_path):
    """Class folders alone, of 12 images each."""
    return shutil.copytree(image_folder / "train", tmp_path / "pics")


@pytest.fixture
def trained_on_a_part(small_settings, classes_alone, tmp_path):
    """The model file of a run with --test-size and --val-size."""
    settings = small_settings(data_dir=classes_alone, test_size=0.25, val_size=6, epochs=1)
    return train(settings, tmp_path / "part", report=False).model_file


def summarize_images(file, **options):
    result = evaluate(file, **options)
    return result.split, result.samples, result.notes


def test_class_folders_alone_are_split_alike_in_training_and_evaluation(trained_on_a_part):
    splits = {name: evaluate(trained_on_a_part, split=name) for name in ("train", "val", "test")}
    files = [image.file for result in splits.values() for image in result.images]
    assert len(files) == len({*files}) == 36
    assert [result.samples for result in splits.values()] == [21, 6, 9]


def test_a_folder_that_is_split_is_taken_as_it_is(trained_on_a_part, image_folder):
    split = {"overrides": {"data_dir": image_folder}}
    assert summarize_images(trained_on_a_part, **split) == ("test", 12, ())
    assert summarize_images(trained_on_a_part, split="train", **split) == ("train", 30, ())
    (image_folder / "test").rename(image_folder / "val")
    assert summarize_images(trained_on_a_part, **split) == ("val", 12, ())
    assert summarize_images(trained_on_a_part, split="train", **split) == ("train", 36, ())


def test_training_images_alone_can_be_evaluated_on(trained_on_a_part, image_folder):
    shutil.rmtree(image_folder / "test")
    split = {"overrides": {"data_dir": image_folder}, "split": "train"}
    assert summarize_images(trained_on_a_part, **split) == ("train", 30, ())


def test_the_share_that_was_cut_is_said(trained_on_a_part, quick_cli, image_folder, tmp_path):
    elsewhere = tmp_path / "pics" / ".." / "pics"
    for flags in ([], ["--data-dir", elsewhere]):
        done = quick_cli("eval", trained_on_a_part, *flags)
        line = f"{trained_on_a_part}: baseline on 9 test images of folder (test_size 0.25)"
        assert line in done.stdout.splitlines()
    done = quick_cli("eval", trained_on_a_part, "--data-dir", image_folder)
    assert done.stdout.splitlines()[0].endswith("on 12 test images of folder")


@pytest.mark.parametrize(("split", "folder"), [(None, "test"), ("train", "train")])
def test_class_folders_alone_are_not_split_for_a_run_that_was_not(
    small_settings, classes_alone, tmp_path, split, folder
):
    file = train(small_settings(epochs=1), tmp_path / "run", report=False).model_file
    with pytest.raises(DataError) as caught:
        evaluate(file, split=split, overrides={"data_dir": classes_alone})
    assert str(caught.value) == (
        f"{classes_alone} has class folders alone (blue, green, red): put them below "
        f"{classes_alone / folder} to take them as {folder} images"
    )


@pytest.mark.parametrize("split", ["test", "val", "train"])
def test_other_files_for_the_test_than_in_training_are_told(
    trained_on_a_part, classes_alone, tmp_path, split
):
    moved = classes_alone.rename(tmp_path / "moved")
    overrides = {"data_dir": moved}
    assert summarize_images(trained_on_a_part, split=split, overrides=overrides)[2] == ()
    (name, *_) = evaluate(trained_on_a_part, overrides=overrides).images
    (moved / name.file).rename((moved / name.file).with_name("renamed.png"))
    assert summarize_images(trained_on_a_part, split=split, overrides=overrides)[2] == (
        f"the files in {moved} that test_size 0.25 makes the test images are not those of the "
        "training: some may have been trained on",
    )


def test_a_report_on_other_files_says_so(trained_on_a_part, classes_alone, tmp_path, quick_cli):
    notes = [json.loads(quick_cli("report", tmp_path / "part", "--json").stdout)["notes"]]
    for image in (classes_alone / "red").iterdir():
        image.rename(image.with_name(f"new{image.name}"))
    notes.append(json.loads(quick_cli("report", tmp_path / "part", "--json").stdout)["notes"])
    assert notes[0] == []
    assert notes[1] == list(evaluate(trained_on_a_part).notes) != []
    assert "some may have been trained on" in (tmp_path / "part" / "report.html").read_text()


def test_a_run_does_not_go_on_with_other_files_for_the_test(
    small_settings, classes_alone, tmp_path
):
    settings = small_settings(data_dir=classes_alone, test_size=0.25)
    steps = []
    stop = {"listeners": [steps.append], "should_stop": lambda: bool(steps)}
    train(settings, tmp_path / "run", report=False, **stop)
    for image in (classes_alone / "red").iterdir():
        image.rename(image.with_name(f"new{image.name}"))
    plan = plan_run({}, resume=tmp_path / "run")
    with pytest.raises(CheckpointError, match="test_size makes the test images are not those of"):
        train(plan.settings, plan.directory, checkpoint=plan.checkpoint)
