import logging
import warnings

import pytest
import torch
from torch import nn

from cifar_cnn import evaluate, explain, export, predict, resolve_settings, train
from cifar_cnn.errors import CheckpointError, DataError, ModelError, SettingsError, UserError
from cifar_cnn.inference.evaluate import write_predictions

SYNTHETIC = {"dataset": "synthetic", "limit_eval": 50}


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_image_folder):
    """A run of two epochs with validation images, and its network as ONNX in both forms."""
    folder = tmp_path_factory.mktemp("onnx")
    images = make_image_folder(folder / "images")
    given = {"dataset": "folder", "data_dir": images, "epochs": 2, "batch_size": 8, "val_size": 6}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_CNN_CACHE", str(folder / "cache"))
        made = train(resolve_settings(given), folder / "run", report=False).run
    export(made, "onnx")
    export(made, "onnx", made / "pixels.onnx", with_preprocessing=True)
    return made


class Small(nn.Module):
    """A network from elsewhere, whose classes are those of the synthetic images unless said."""

    def __init__(self, classes=10, answer=lambda logits: logits):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.classify, self.answer = nn.Linear(8, classes), answer

    def forward(self, *images):
        pixels = images[0].float()
        if images[0].dtype == torch.uint8:
            pixels = (pixels / 255 - 0.5) / 0.5
        return self.answer(self.classify(self.layers(pixels).flatten(1)))


@pytest.fixture
def write(tmp_path):
    """Write a network as a file of torch's exporter alone."""

    def write_one(network=None, images=1, dtype=torch.float32, free=(0,)):
        given = (torch.zeros(2, 3, 32, 32, dtype=dtype),) * images
        names = {0: "batch", 2: "height", 3: "width"}
        sizes = {axis: torch.export.Dim(names[axis]) for axis in free}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable()
            program = torch.onnx.export(
                (network or Small()).eval(),
                given,
                dynamo=True,
                dynamic_shapes={"images": (sizes,) * images},
                verbose=False,
            )
            logging.disable(logging.NOTSET)
        (tmp_path / "net.onnx").write_bytes(program.model_proto.SerializeToString())
        return tmp_path / "net.onnx"

    return write_one


@pytest.mark.parametrize("name", ["model.onnx", "pixels.onnx"])
@pytest.mark.parametrize("asked", [{}, {"split": "val"}, {"split": "train"}, {"tta": True}])
def test_an_onnx_file_is_as_good_as_its_checkpoint(run, name, asked):
    fp32 = {"precision": "fp32"}
    expected = evaluate(run / "model.pt", overrides=fp32, **asked)
    found = evaluate(run / name, **asked)
    for key in ("model", "dataset", "split", "samples", "accuracy", "confusion", "tta"):
        assert getattr(found, key) == getattr(expected, key), key
    assert found.loss == pytest.approx(expected.loss, abs=1e-5)
    assert (found.checkpoint, found.notes) == (str(run / name), ())


def test_flags_of_the_images_work_as_for_a_checkpoint(run, tmp_path):
    overrides = {"limit_eval": 6, "threads": 1, "precision": "fp32", "device": "cpu"}
    found = evaluate(run / "model.onnx", overrides=overrides)
    assert [each.samples for each in found.per_class.values()] == [2, 2, 2]
    write_predictions(found.images, tmp_path / "all.csv")
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 7
    with pytest.raises(DataError, match="folder nowhere does not exist"):
        evaluate(run / "model.onnx", overrides={"data_dir": "nowhere"})


@pytest.mark.parametrize("setting", ["model", "precision", "device"])
def test_a_setting_without_an_effect_is_refused(run, setting):
    value = {"model": "compact", "precision": "bf16", "device": "cuda"}[setting]
    with pytest.raises(
        SettingsError, match=f"runs as it is: leave {setting if setting != 'model' else ''}"
    ):
        evaluate(run / "model.onnx", overrides={setting: value})
    with pytest.raises(SettingsError, match="leave normalization out"):
        evaluate(run / "model.onnx", normalization="cifar10")


def test_data_of_other_classes_are_refused(run, write):
    with pytest.raises(
        CheckpointError, match="was trained on the classes blue, green, red; the da"
    ):
        evaluate(run / "model.onnx", overrides={"dataset": "synthetic"})
    with pytest.raises(ModelError, match=r"is \(1, 7\), the data set needs \(1, 10\)"):
        evaluate(write(Small(7)), overrides=SYNTHETIC, normalization="0.5/0.5")


def test_a_file_of_an_earlier_version_needs_its_data_set(run, tmp_path):
    import onnx

    proto = onnx.load(run / "model.onnx")
    kept = [
        each for each in proto.metadata_props if each.key in ("model", "classes", "mean", "std")
    ]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    onnx.save(proto, tmp_path / "old.onnx")
    with pytest.raises(SettingsError, match=r"pass dataset \(with data_dir\)$"):
        evaluate(tmp_path / "old.onnx")
    overrides = {"dataset": "folder", "data_dir": run.parent / "images"}
    found = evaluate(tmp_path / "old.onnx", overrides=overrides)
    assert found.accuracy == evaluate(run / "model.onnx").accuracy


def test_metadata_that_is_not_ours_to_read_is_said(run, tmp_path):
    import onnx

    wrong = [("classes", each) for each in ("[", "[]", "5", '[["a"]]')]
    wrong += [("settings", each) for each in ("5", '[["dataset", "folder"]]', '{"dataset": 5}')]
    wrong += [
        ("mean", '"x"'),
        ("mean", "[NaN, 0, 0]"),
        ("std", "[0, 1, 1]"),
        ("std", "[" * 100_000),
    ]
    for key, value in wrong:
        proto = onnx.load(run / "model.onnx")
        for each in proto.metadata_props:
            each.value = value if each.key == key else each.value
        onnx.save(proto, tmp_path / "a.onnx")
        with pytest.raises(CheckpointError, match="unusable metadata: export it again"):
            evaluate(tmp_path / "a.onnx")


def test_names_in_metadata_are_printed_without_control_codes(run, tmp_path):
    import onnx

    proto = onnx.load(run / "model.onnx")
    for each in proto.metadata_props:
        each.value = "a\x1b[31m\nb" if each.key == "model" else each.value
    onnx.save(proto, tmp_path / "A.ONNX")
    assert evaluate(tmp_path / "A.ONNX").model == r"a\x1b[31m\nb"


def test_a_file_from_elsewhere_says_what_to_pass_and_works_with_it(write):
    answers = (lambda logits: logits, lambda logits: logits.softmax(1), lambda x: x.log_softmax(1))
    found = []
    for answer in answers:
        file = write(Small(answer=answer))
        with pytest.raises(SettingsError, match=r"pass dataset .*, normalization$"):
            evaluate(file)
        found.append(evaluate(file, overrides=SYNTHETIC, normalization="0.5/0.5"))
        assert "it is used with normalization 0.5/0.5" in found[-1].notes[0]
    found.append(evaluate(write(dtype=torch.uint8), overrides=SYNTHETIC))
    assert "it is used with uint8 colors" in found[-1].notes[0]
    assert len({each.accuracy for each in found}) == 1
    assert [each.loss for each in found] == pytest.approx([found[0].loss] * 4, abs=1e-5)


def test_an_image_size_that_is_free_has_to_be_passed(write):
    file = write(free=(0, 2, 3))
    with pytest.raises(SettingsError, match=r"pass input_size$"):
        evaluate(file, overrides=SYNTHETIC, normalization="0.5/0.5")
    overrides = SYNTHETIC | {"input_size": "40x48"}
    assert evaluate(file, overrides=overrides, normalization="0.5/0.5").samples == 50


@pytest.mark.parametrize(
    "network",
    [
        {"free": ()},
        {"images": 2},
        {"network": Small(answer=lambda logits: (logits, logits + 1))},
    ],
    ids=["fixed batch", "two inputs", "two outputs"],
)
def test_what_is_not_one_image_to_one_answer_is_refused(write, network):
    with pytest.raises(CheckpointError, match=r"maps .* one float or uint8 input .* one output"):
        evaluate(write(**network), overrides=SYNTHETIC, normalization="0.5/0.5")


def test_a_damaged_file_is_refused(run, tmp_path, capfd):
    whole = (run / "model.onnx").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no network"):
        (tmp_path / "a.onnx").write_bytes(content)
        with pytest.raises(CheckpointError, match="is damaged or not an ONNX network"):
            evaluate(tmp_path / "a.onnx")
    assert capfd.readouterr() == ("", "")


def test_a_file_is_predicted_with_but_not_explained(run):
    image = run.parent / "images" / "test" / "red" / "000.png"
    (expected,) = predict([image], run / "model.pt").predictions
    (found,) = predict([image], run / "pixels.onnx").predictions
    assert found.top[0].name == expected.top[0].name
    with pytest.raises(UserError, match="is an ONNX network: Grad-CAM needs"):
        explain([image], run / "pixels.onnx")


def test_a_missing_package_is_named(run, monkeypatch):
    monkeypatch.setattr("cifar_cnn.inference.onnx_file.find_spec", lambda _name: None)
    with pytest.raises(UserError, match=r"need onnxruntime: pip install '\.\[onnx\]'"):
        evaluate(run / "model.onnx")


def test_an_exported_file_holds_no_stack_traces(run):
    assert b"site-packages" not in (run / "model.onnx").read_bytes()
