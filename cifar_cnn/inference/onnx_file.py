"""ONNX files as trained networks that onnxruntime runs, with or without our metadata."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_cnn.errors import CheckpointError, SettingsError, UserError, one_line, printable
from cifar_cnn.models.output import is_probability
from cifar_cnn.settings import validate
from cifar_cnn.storage.checkpoint import Checkpoint
from cifar_cnn.storage.network import Network

IMAGES_BY = {"dataset", "data_dir", "input_size", "limit_train", "val_size", "test_size"}
"""Settings that decide which images a network is evaluated on; the metadata holds them."""
FIXED = {"model": (), "model_arg": (), "precision": ("auto", "fp32"), "device": ("auto", "cpu")}
"""Settings that an ONNX file has no use for, and the values that do no harm."""


class OnnxModel(nn.Module):
    """An ONNX network as a module, from images as it takes them to log-probabilities."""

    outputs_log_probabilities = True

    def __init__(self, file: Path | bytes, threads: int = 0) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads  # 0: as many as there are cores
        options.log_severity_level = 4  # its errors are raised, too
        providers = ["CPUExecutionProvider"]
        self.session: Any = onnxruntime.InferenceSession(file, options, providers=providers)
        self.input: Any = self.session.get_inputs()[0]

    def run(self, images: Tensor) -> Tensor:
        """Return the network's own output."""
        images = images.to(torch.uint8) if takes_pixels(self) else images
        return torch.from_numpy(*self.session.run(None, {self.input.name: images.numpy()}))

    def forward(self, images: Tensor) -> Tensor:
        """Return log-probabilities, from probabilities or logits."""
        output = self.run(images).float()
        name = self.session.get_outputs()[0].name
        if name == "probabilities" or is_probability(output.flatten(1)):
            return output.clamp(min=torch.finfo(output.dtype).tiny).log()
        return F.log_softmax(output, dim=1)


def takes_pixels(model: nn.Module | None) -> bool:
    """Return whether this is an ONNX network that takes uint8 images, and not normalized ones."""
    return isinstance(model, OnnxModel) and model.input.type == "tensor(uint8)"


def open_onnx(file: Path, overrides: Mapping[str, Any], normalization: str | None) -> Network:
    """Return the network of an ONNX file; without our metadata it has no classes yet."""
    useless = [name for name in FIXED if overrides.get(name) not in (None, *FIXED[name])]
    if useless:
        flag = useless[0].replace("_", "-")
        raise SettingsError(f"{file} is an ONNX network and runs as it is: leave --{flag} out")
    if find_spec("onnxruntime") is None:
        raise UserError("ONNX networks need onnxruntime: pip install '.[onnx]'")
    values = {**overrides, "precision": "fp32", "device": "cpu"}
    model, own = _read_model(file, validate(values).threads)
    metadata = model.session.get_modelmeta().custom_metadata_map
    name, content = printable(metadata.get("model", "onnx")), None
    try:
        stored = {**json.loads(metadata.get("settings", "{}"))}
        own = {key: stored[key] for key in IMAGES_BY & stored.keys()} | own
        if metadata.keys() >= {"model", "classes", "mean", "std"}:
            content = Checkpoint(
                **{name: json.loads(metadata[name]) for name in ("classes", "mean", "std")},
                model=name,
                settings=validate({**own, "model": name}),
                metrics={},
                state_dict={},
                test_sha256=metadata.get("test_sha256") or None,
            )
    except (ValueError, TypeError, RecursionError, SettingsError) as error:
        raise CheckpointError(f"{file} has unusable metadata: export it again") from error
    needed = {
        "--dataset (with --data-dir)": "dataset" in {**own, **values},
        "--normalization": content or normalization or takes_pixels(model),
        "--input-size": "input_size" in {**own, **values},
    }
    if missing := [flag for flag, known in needed.items() if not known]:
        raise SettingsError(f"{file} does not say how it was trained: pass {', '.join(missing)}")
    settings = validate({"model": name, **own, **values})
    if content is None:
        return Network(settings, file, onnx=model)
    return Network(settings, file, {}, content, content.classes, content.normalization, onnx=model)


def _read_model(file: Path, threads: int) -> tuple[OnnxModel, dict[str, Any]]:
    """Return the file's network, and the settings that its input shape says."""
    try:
        model = OnnxModel(file, threads)
    except Exception as error:  # onnxruntime's errors have no common base
        reason = one_line(error)
        raise CheckpointError(f"{file} is damaged or not an ONNX network: {reason}") from error
    ends = model.session.get_inputs(), model.session.get_outputs()
    inputs, outputs = ([(each.type, *each.shape) for each in end] for end in ends)
    match inputs, outputs:
        case [
            [("tensor(float)" | "tensor(uint8)", str() | None, 3 | str() | None, height, width)],
            [(_, _, _) | (_,)],
        ]:
            is_fixed = isinstance(height, int) and isinstance(width, int)
            return model, {"input_size": (height, width)} if is_fixed else {}
    raise CheckpointError(
        f"{file} maps {inputs} to {outputs}: it has to take one float or uint8 input [batch, 3, "
        "height, width], the batch size not fixed, and give one output [batch, classes]"
    )
