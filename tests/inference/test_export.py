import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from safetensors import safe_open
from safetensors.torch import load_file

from cifar_cnn import build_model, export, predict, resolve_settings
from cifar_cnn.errors import CheckpointError, ExportError, SettingsError, UserError
from cifar_cnn.inference import export as exporting
from cifar_cnn.inference.formats import FORMATS, write_torch_export
from cifar_cnn.inference.trained import open_trained
from cifar_cnn.storage.checkpoint import pack, read_checkpoint

ALONE = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
assert "torch" not in sys.modules
images = np.load(sys.argv[2])
(given,), (returned,) = session.get_inputs(), session.get_outputs()
answer = session.run(None, {given.name: images})[0]
about = session.get_modelmeta().custom_metadata_map
print(json.dumps({"type": given.type, "name": returned.name, "answer": answer.tolist(),
                  "classes": json.loads(about["classes"])}))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory, untrained):
    """An ONNX file with preprocessing, where the page on exports has it, and its checkpoint."""
    folder = tmp_path_factory.mktemp("exported")
    checkpoint = folder / "runs" / "quick" / "model.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(untrained)
    done = export(checkpoint, "onnx", with_preprocessing=True)
    assert done.file == checkpoint.with_suffix(".onnx")
    assert done.max_difference < 1e-5
    return folder, checkpoint


def test_onnx_with_preprocessing_needs_nothing_but_onnxruntime(exported, tmp_path):
    _, checkpoint = exported
    pixels = np.random.RandomState(0).randint(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.save(tmp_path / "images.npy", np.stack([pixels.transpose(2, 0, 1)] * 3))
    command = [sys.executable, "-c", ALONE, checkpoint.with_suffix(".onnx")]
    answered = subprocess.run(
        [*command, tmp_path / "images.npy"], capture_output=True, text=True, check=False
    )
    assert answered.returncode == 0, answered.stderr
    found = json.loads(answered.stdout)
    assert (found["type"], found["name"]) == ("tensor(uint8)", "probabilities")
    (expected,) = predict([tmp_path / "a.png"], checkpoint).predictions
    for row in found["answer"]:
        assert dict(zip(found["classes"], row, strict=True)) == pytest.approx(
            {each.name: each.probability for each in expected.top}, abs=1e-5
        )


@pytest.mark.parametrize(
    ("name", "given"), [("onnx", {"opset": 18}), ("torch-export", {}), ("safetensors", {})]
)
def test_the_file_answers_as_the_network_does_at_any_batch_size(untrained_file, name, given):
    import onnx
    import onnxruntime

    done = export(untrained_file, name, **given)
    assert done.file == untrained_file.with_suffix(FORMATS[name][0])
    trained = open_trained(untrained_file)
    assert done.size == done.file.stat().st_size < 4 * untrained_file.stat().st_size
    assert done.milliseconds > 0
    if name == "onnx":
        assert onnx.load(done.file).opset_import[0].version == 18
        onnx.checker.check_model(done.file, full_check=True)
        session = onnxruntime.InferenceSession(done.file)

        def run(images):
            return torch.from_numpy(*session.run(None, {"images": images.numpy()}))

    elif name == "torch-export":
        run = torch.export.load(done.file).module()
    else:
        run = build_model("baseline", num_classes=3).eval()
        run.load_state_dict(load_file(done.file))
        with safe_open(done.file, "pt") as file:
            about = file.metadata()
        assert json.loads(about["classes"]) == ["blue", "green", "red"]
        assert json.loads(about["mean"]) == [0.4914, 0.4822, 0.4465]
    for count in (1, 2, 5):
        images = torch.randn(count, 3, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(run(images), trained.model(images), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"format": "onyx"}, SettingsError, "unknown format 'onyx' .did you mean 'onnx'"),
        ({"format": "onnx", "opset": 5}, SettingsError, "opset 5 is out of range"),
        ({"format": "onnx", "opset": 99}, SettingsError, "choose from 18 to 23"),
        ({"format": "torch-export", "opset": 18}, SettingsError, "^opset is for the format onnx"),
        ({"format": "safetensors", "with_preprocessing": True}, SettingsError, "weights alone"),
        ({"format": "onnx", "output": "none/a.onnx"}, UserError, "there is no folder none"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_written(
    untrained_file, tmp_path, monkeypatch, arguments, error, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        export(untrained_file, **arguments)
    assert list(tmp_path.iterdir()) == [untrained_file]


def test_an_existing_file_is_kept_unless_it_may_go(untrained_file, tmp_path):
    target = tmp_path / "net.safetensors"
    target.write_text("precious")
    with pytest.raises(ExportError, match="exists: choose another output, or exist_ok"):
        export(untrained_file, "safetensors", target)
    assert target.read_text() == "precious"
    export(untrained_file, "safetensors", target, exist_ok=True)
    assert target.stat().st_size > 100_000


def test_a_runs_own_file_is_not_replaced(untrained_file, tmp_path):
    (tmp_path / "settings.toml").touch()
    kept = untrained_file.read_bytes()
    with pytest.raises(ExportError, match="is a run's own file"):
        export(untrained_file, "safetensors", untrained_file, exist_ok=True)
    assert untrained_file.read_bytes() == kept


def test_an_export_that_answers_otherwise_is_not_written(untrained_file, tmp_path, monkeypatch):
    def write(source):
        content, run = write_torch_export(source)
        return content, lambda images: run(images) + 0.01

    monkeypatch.setitem(FORMATS, "onnx", (".onnx", write))
    with pytest.raises(ExportError, match=r"PyTorch by 0\.01 on 100 images"):
        export(untrained_file, "onnx")
    assert list(tmp_path.iterdir()) == [untrained_file]


def test_a_bare_state_dict_is_refused(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "bare.pt")
    with pytest.raises(CheckpointError, match="without classes and normalization"):
        export(tmp_path / "bare.pt", "safetensors")


@pytest.mark.parametrize(
    "answer",
    [
        "self.linear(x.flatten(1)) * (1 if x.sum().item() > 0 else 2)",
        "sum(self.linear(torch.cat([x, x.flip(3)]).flatten(1)).split(2 * len(x) // 2))",
        "self.linear(nn.functional.dropout(x.flatten(1)))",
    ],
)
def test_a_network_that_cannot_be_captured_is_refused_in_one_line(
    answer, untrained_file, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.linear = nn.Linear(3072, 3)\n"
        "    def forward(self, x):\n"
        f"        return {answer}\n"
    )
    changes = {
        "model": "net.py:Net",
        "settings": resolve_settings({"model": "net.py:Net"}),
        "state_dict": dict(build_model("net.py:Net").state_dict()),
    }
    checkpoint = read_checkpoint(untrained_file).model_copy(update=changes)
    (tmp_path / "model.pt").write_bytes(pack(checkpoint))
    for name in ("onnx", "torch-export"):
        with pytest.raises(ExportError, match="cannot be exported: ") as caught:
            export("model.pt", name, overrides={"model": "net.py:Net"})
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
    assert capfd.readouterr() == ("", "")


def test_the_documented_lines_name_the_class_that_predict_names(exported, monkeypatch):
    folder, checkpoint = exported
    monkeypatch.chdir(folder)
    page = Path(exporting.__file__).with_name("README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    random = np.random.RandomState(0)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for index in range(40):
        coarse = Image.fromarray(random.randint(0, 256, (9, 12, 4), dtype=np.uint8))
        photo = coarse.resize((random.randint(20, 200), 90)).convert("RGBA" if index % 2 else "RGB")
        photo.save(f"{index:02}.png", exif=exif)
    for image in predict([f"{index:02}.png" for index in range(40)], checkpoint).predictions:
        names = {}
        exec(lines.replace("photo.png", image.file), names)  # noqa: S102 - our own page
        answer = dict(zip(names["classes"], names["probabilities"][0].tolist(), strict=True))
        assert answer == pytest.approx(
            {each.name: each.probability for each in image.top}, abs=1e-6
        )
        assert max(answer, key=answer.get) == image.top[0].name


def test_a_missing_extra_is_installed_as_the_front_page_installs_the_program(
    untrained_file, monkeypatch
):
    monkeypatch.setattr("cifar_cnn.inference.formats.find_spec", lambda _name: None)
    with pytest.raises(UserError, match=r"needs onnx, onnxscript, .*: pip install '\.\[onnx\]'$"):
        export(untrained_file, "onnx")
