import json
import logging
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from PIL import Image

from cifar_cnn import evaluate, export, predict, resolve_settings, train
from cifar_cnn.errors import DataError, ExportError, RequestError
from cifar_cnn.inference import int8 as quantizing
from cifar_cnn.inference.formats import FORMATS
from cifar_cnn.inference.int8 import FileMeasures
from cifar_cnn.inference.onnx_file import OnnxModel
from cifar_cnn.storage.checkpoint import pack, read_checkpoint

CLASSES = {"amber": 160, "blue": 120, "coral": 80, "drab": 40}
"""400 photographs of four classes, unequal as people's are."""

ALONE = """
import sys, json
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
(given,), (returned,) = session.get_inputs(), session.get_outputs()
answer = session.run(None, {given.name: np.load(sys.argv[2])})[0]
print(json.dumps({"type": given.type, "name": returned.name, "answer": answer.tolist()}))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on class folders of 400 images, a quarter of which are the test images."""
    folder = tmp_path_factory.mktemp("int8")
    random = np.random.RandomState(0)
    for label, (name, count) in enumerate(CLASSES.items()):
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(count):
            pixels = random.randint(0, 160, (40, 48, 3), dtype=np.uint8)
            pixels[:, :, label % 3] += 20 + 60 * (label == 3)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{index:03}.png")
    settings = {
        "model": "compact",
        "model_arg": ["width=0.25"],
        "recipe": "best",
        "dataset": "folder",
        "data_dir": folder / "photos",
        "test_size": 0.25,
        "epochs": 3,
        "batch_size": 20,
        "precision": "fp32",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_CNN_CACHE", str(folder / "cache"))
        return train(resolve_settings(settings), folder / "run", report=False).run


@pytest.fixture(scope="module")
def exported(run):
    """The run's network in int8 with preprocessing."""
    return export(run, "onnx", with_preprocessing=True, int8=True)


def test_int8_has_a_byte_for_a_weight_and_the_accuracy_that_was_measured(run, exported):
    import onnx

    both, content = exported.int8, onnx.load(exported.file)
    assert exported.file == run / "model.int8.onnx"
    assert exported.size == both.int8.size == exported.file.stat().st_size < 0.55 * both.fp32.size
    assert exported.milliseconds == both.int8.milliseconds
    assert (both.calibration_images, both.compared_images, both.eval_images) == (150, 150, 100)
    assert both.fp32.train_accuracy - both.int8.train_accuracy <= 0.01
    onnx.checker.check_model(content, full_check=True)
    sizes = [each for each in content.graph.initializer if each.data_type == onnx.TensorProto.INT8]
    assert sum(int(np.prod(each.dims)) for each in sizes) > 25_000
    found = evaluate(exported.file)
    assert (found.accuracy, found.samples) == (both.int8.eval_accuracy, 100)
    assert found.accuracy == pytest.approx(evaluate(run).accuracy, abs=0.05)
    about = {each.key: each.value for each in content.metadata_props}
    assert (about["model"], about["precision"]) == ("compact", "int8")
    assert json.loads(about["classes"]) == list(CLASSES)


def test_normalization_and_probabilities_stay_float(exported):
    import onnx

    nodes = [node.op_type for node in onnx.load(exported.file).graph.node]
    assert nodes.index("Cast") < nodes.index("Mul") < nodes.index("QuantizeLinear")
    assert "BatchNormalization" not in nodes or nodes.count("BatchNormalization") == 3
    assert nodes[-2:] == ["LogSoftmax", "Exp"]


def test_the_file_takes_uint8_images_with_onnxruntime_alone(run, exported, tmp_path):
    images = np.random.RandomState(1).randint(0, 255, (3, 3, 32, 32), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    for index, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{index}.png")
    answered = subprocess.run(
        [sys.executable, "-c", ALONE, exported.file, tmp_path / "images.npy"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answered.returncode == 0, answered.stderr
    found = json.loads(answered.stdout)
    assert (found["type"], found["name"]) == ("tensor(uint8)", "probabilities")
    files = [tmp_path / f"{index}.png" for index in range(3)]
    for row, image in zip(found["answer"], predict(files, exported.file).predictions, strict=True):
        answer = dict(zip(CLASSES, row, strict=True))
        assert {each.name: each.probability for each in image.top} == pytest.approx(
            {each.name: answer[each.name] for each in image.top}, abs=1e-5
        )


@pytest.fixture
def written_once(run, monkeypatch):
    """Let `export` take the fp32 file of the first test that needs it."""
    if not (run / "fp32.onnx").exists():
        export(run, "onnx", run / "fp32.onnx")
    content = (run / "fp32.onnx").read_bytes()
    monkeypatch.setitem(FORMATS, "onnx", (".onnx", lambda _: (content, OnnxModel(content).run)))


@pytest.mark.usefixtures("written_once")
def test_images_of_calibration_are_training_images_that_nothing_else_uses(
    run, tmp_path, monkeypatch
):
    seen = {}

    def record(name):
        function = getattr(quantizing, name)

        def recording(source, fp32, *images):
            seen.setdefault(name, []).append(images)
            return function(source, fp32, *images)

        monkeypatch.setattr(quantizing, name, recording)

    record("_quantize")
    record("_measure")
    export(run, "onnx", tmp_path / "a.onnx", int8=True, calibration_images=40)
    ((calibration,),), (of_fp32, of_int8) = seen["_quantize"], seen["_measure"]
    assert of_fp32 == of_int8
    compared, test = (each.images for each in of_fp32)
    assert [len(calibration), len(compared), len(test)] == [40, 260, 100]

    def as_set(images):
        return {image.numpy().tobytes() for image in images}

    assert len(as_set(calibration) | as_set(compared) | as_set(test)) == 400


@pytest.mark.usefixtures("written_once")
def test_a_network_that_loses_more_than_allowed_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    measures = [
        FileMeasures(size=1, milliseconds=1, train_accuracy=each, eval_accuracy=1)
        for each in (0.9, 0.88)
    ]
    monkeypatch.setattr(quantizing, "_measure", lambda *_: measures.pop(0))
    with pytest.raises(ExportError, match=r"loses 2\.00 percentage .* more than max_drop 1$"):
        export(run, "onnx", tmp_path / "a.onnx", int8=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "tmp"]
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.usefixtures("written_once")
def test_a_stop_leaves_nothing(run, tmp_path, monkeypatch):
    from onnxruntime import quantization

    def stop(_proto, file, *_arguments, **_options):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(quantization, "quantize_static", stop)
    with pytest.raises(KeyboardInterrupt):
        export(run, "onnx", tmp_path / "a.onnx", int8=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "tmp"]
    assert not list((tmp_path / "tmp").iterdir())


def test_the_terminal_stays_clean_and_logging_as_it_was(run, tmp_path, capfd):
    handlers = [*logging.root.handlers]
    export(run, "onnx", tmp_path / "a.onnx", int8=True, opset=18)
    assert capfd.readouterr() == ("", "")
    assert logging.root.handlers == handlers


@pytest.mark.parametrize(
    ("factor", "reason"), [(float("nan"), "differs from PyTorch by nan"), (0, "the same answer")]
)
def test_a_network_without_answers_is_refused(run, tmp_path, factor, reason):
    checkpoint = read_checkpoint(run / "model.pt")
    weights = {
        name: value * factor if value.is_floating_point() else value
        for name, value in checkpoint.state_dict.items()
    }
    file = tmp_path / "model.pt"
    file.write_bytes(pack(checkpoint.model_copy(update={"state_dict": weights})))
    with pytest.raises(ExportError, match=reason):
        export(file, "onnx", int8=True)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.usefixtures("written_once")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"format": "safetensors", "int8": True}, RequestError, "int8 is for format onnx"),
        ({"format": "torch-export", "int8": True}, RequestError, "int8 is for format onnx"),
        ({"format": "onnx", "max_drop": 2}, RequestError, "max_drop and .* are for int8"),
        ({"format": "onnx", "calibration_images": 2}, RequestError, "are for int8"),
        ({"format": "onnx", "overrides": {"data_dir": "x"}}, RequestError, "are for int8"),
        (
            {"format": "onnx", "int8": True, "calibration_images": 0},
            RequestError,
            "calibration_images 0 is invalid",
        ),
        (
            {"format": "onnx", "int8": True, "calibration_images": 300},
            RequestError,
            r"calibration_images 300 is invalid: give 1 to 299$",
        ),
        (
            {"format": "onnx", "int8": True, "overrides": {"data_dir": "nowhere"}},
            DataError,
            "folder nowhere does not exist",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(run, tmp_path, arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        export(run, output=tmp_path / "a.onnx", **arguments)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_own_network_is_folded_and_quantized(image_folder, tmp_path, monkeypatch):
    import onnx

    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(),\n"
        "            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))\n"
    )
    settings = resolve_settings(
        {"model": "net.py", "dataset": "folder", "data_dir": image_folder, "batch_size": 12}
    )
    done = train(settings, tmp_path / "run", report=False)
    found = export(done.run, "onnx", int8=True, overrides={"model": "net.py"})
    nodes = {node.op_type for node in onnx.load(found.file).graph.node}
    assert nodes > {"Conv", "QuantizeLinear", "DequantizeLinear"}
    assert "BatchNormalization" not in nodes
    assert evaluate(found.file).accuracy == found.int8.int8.eval_accuracy
    (tmp_path / "net.py").unlink()
    assert evaluate(found.file).model == "net.py"  # no code is needed, and none runs
