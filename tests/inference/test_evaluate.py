import pytest
import torch

from cifar_cnn import evaluate, resolve_settings, train
from cifar_cnn.errors import CheckpointError, DataError, RunError, SettingsError
from cifar_cnn.models import build_model


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_image_folder):
    """A run of two epochs with a validation split of six images."""
    folder = tmp_path_factory.mktemp("trained")
    images = make_image_folder(folder / "images")
    given = {"dataset": "folder", "data_dir": images, "epochs": 2, "batch_size": 8, "val_size": 6}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_CNN_CACHE", str(folder))
        settings = resolve_settings(given | {"precision": "fp32"})
        return train(settings, folder / "run", report=False).run


@pytest.fixture
def bare(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "bare.pt"
    torch.save(build_model("baseline", num_classes=3).state_dict(), path)
    return path


def test_model_best_and_last_are_evaluated(trained):
    for name in ("model.pt", "best.pt", "last.pt"):
        document = evaluate(trained / name).model_dump(mode="json")
        assert document["samples"] == 12
        assert document["dataset"] == "folder"
        assert document["model"] == "baseline"


def test_the_document_agrees_with_itself(trained):
    document = evaluate(trained / "model.pt", tta=True).model_dump(mode="json")
    assert (document["split"], document["tta"]) == ("test", True)
    confusion = document["confusion"]
    assert document["accuracy"] == sum(row[i] for i, row in enumerate(confusion)) / 12
    for index, name in enumerate(("blue", "green", "red")):
        found = document["per_class"][name]
        assert (found["accuracy"], found["samples"]) == (confusion[index][index] / 4, 4)


@pytest.mark.parametrize(("split", "samples"), [("train", 30), ("val", 6), ("test", 12)])
def test_every_split_is_that_of_the_run(trained, split, samples):
    assert evaluate(trained / "model.pt", split=split).samples == samples


def test_a_limit_is_a_class_balanced_subset(trained):
    document = evaluate(trained / "model.pt", overrides={"limit_eval": 6}).model_dump(mode="json")
    assert [each["samples"] for each in document["per_class"].values()] == [2, 2, 2]
    document = evaluate(trained / "model.pt", overrides={"limit_eval": 2}).model_dump(mode="json")
    assert [each["samples"] for each in document["per_class"].values()] == [1, 1, 0]
    assert document["per_class"]["red"]["accuracy"] is None


def test_no_validation_split_is_said(bare, image_folder):
    where = {"dataset": "folder", "data_dir": image_folder}
    with pytest.raises(SettingsError, match="no validation split"):
        evaluate(bare, split="val", overrides=where)


def test_other_classes_than_the_data_sets_are_refused(trained):
    with pytest.raises(CheckpointError, match=r"trained on the classes blue, green, red; .*warm"):
        evaluate(trained / "model.pt", overrides={"dataset": "synthetic"})


def test_a_relative_folder_of_the_runs_own_is_said_to_be_that(
    small_settings, image_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = train(small_settings(data_dir="images", epochs=1), tmp_path / "run", report=False).run
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(
        DataError, match=r"model\.pt was trained with it, from another .*: data_dir says"
    ):
        evaluate(run / "model.pt")
    with pytest.raises(DataError) as caught:
        evaluate(run / "model.pt", overrides={"data_dir": "mine"})
    assert "was trained with" not in str(caught.value)
    assert evaluate(run / "model.pt", overrides={"data_dir": "../images"}).samples == 12


def test_answers_that_are_not_finite_are_refused(bare, image_folder):
    weights = torch.load(bare, weights_only=True)
    weights["convblock1.0.weight"][0] = float("nan")
    torch.save(weights, bare)
    with pytest.raises(RunError, match="loss on 12 images is nan"):
        evaluate(bare, overrides={"dataset": "folder", "data_dir": image_folder})


def test_a_split_that_does_not_exist_is_answered_with_the_one_that_was_meant(trained):
    with pytest.raises(SettingsError, match=r"unknown split 'tset' \(did you mean 'test'\?\)"):
        evaluate(trained / "model.pt", split="tset")
