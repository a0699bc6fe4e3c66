"""ONNX files as trained networks that onnxruntime runs, with or without our metadata."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_cnn.errors import CheckpointError, SettingsError, UserError, counted, one_line
from cifar_cnn.models.output import check_output, is_probability
from cifar_cnn.settings import validate
from cifar_cnn.storage.checkpoint import Checkpoint, settings_of
from cifar_cnn.storage.network import Network

ABOUT = ("classes", "mean", "std", "input_size")
"""Metadata in JSON that every exported file has."""
CHOOSE_IMAGES = {
    *("model", "model_arg", "input_size", "dataset", "data_dir", "limit_train", "val_size"),
    *("test_size", "normalization"),
}
"""Settings that the metadata `settings` holds since version 0.4.0."""
FIXED = {"model": (), "model_arg": (), "precision": ("auto", "fp32"), "device": ("auto", "cpu")}
"""Settings that have no effect on an ONNX file, and the values that it allows."""


class OnnxModel(nn.Module):
    """A module that gives the log-probabilities (N, classes) of an ONNX network's outputs.

    It takes normalized images, or uint8 images if `takes_pixels`.
    """

    outputs_log_probabilities = True

    def __init__(self, content: Path | bytes, threads: int = 0) -> None:
        super().__init__()
        self.session = start_session(content, threads)
        self.takes_pixels: bool = self.session.get_inputs()[0].type == "tensor(uint8)"

    def forward(self, images: Tensor) -> Tensor:
        """Return log-probabilities; outputs that are no probabilities are taken for logits."""
        (given,), (returned,) = self.session.get_inputs(), self.session.get_outputs()
        pixels = images.to(torch.uint8) if self.takes_pixels else images
        output = torch.from_numpy(*self.session.run(None, {given.name: pixels.numpy()})).float()
        if returned.name == "probabilities" or is_probability(output.flatten(1)):
            return output.clamp(min=torch.finfo(output.dtype).tiny).log()
        return F.log_softmax(output, dim=1)


@dataclass(frozen=True, eq=False)
class OnnxNetwork(Network):
    """The network of an ONNX file."""

    onnx_model: OnnxModel | None = None

    @property
    def takes_pixels(self) -> bool:
        """Whether it takes uint8 images, and not normalized ones."""
        assert self.onnx_model is not None
        return self.onnx_model.takes_pixels

    @cached_property
    def model(self) -> nn.Module:
        """The module; a ModelError is raised if it does not fit the images or the classes."""
        assert self.onnx_model is not None
        check_output(self.onnx_model, self.settings.input_size, len(self.classes))
        return self.onnx_model


def start_session(content: Path | bytes, threads: int = 0) -> Any:
    """Return an onnxruntime.InferenceSession; 0 threads are onnxruntime's choice."""
    if find_spec("onnxruntime") is None:
        raise UserError("ONNX networks need onnxruntime: pip install '.[onnx]'")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what fails is raised, too
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def open_onnx(file: Path, overrides: Mapping[str, Any], normalization: str | None) -> Network:
    """Return the network of an ONNX file, with its own settings where it has metadata.

    Without metadata, the overrides have to name the data set, and the network has no classes yet.
    """
    for name, allowed in FIXED.items():
        if overrides.get(name) not in (None, *allowed):
            raise SettingsError(
                f"{file} is an ONNX network, which runs as it is, on the CPU: "
                f"leave --{name.replace('_', '-')} out"
            )
    values = {**overrides, "precision": "fp32", "device": "cpu"}
    model = _read_model(file, validate(values).threads)
    metadata = model.session.get_modelmeta().custom_metadata_map
    if metadata.keys() >= {"model", *ABOUT}:
        content = _read_metadata(file, metadata, overrides)
        own = {"model": content.model, "model_arg": content.settings.model_arg}
        settings = settings_of(content, file, {**own, **values})
        stored = (content, content.classes, content.normalization)
        return OnnxNetwork(settings, file, {}, *stored, onnx_model=model)
    size = _input_size(model)
    missing = [] if "dataset" in overrides else ["--dataset"]
    missing += [] if normalization or model.takes_pixels else ["--normalization"]
    missing += [] if size or "input_size" in overrides else ["--input-size"]
    if missing:
        raise SettingsError(
            f"{file} has no metadata of cifar-cnn: pass {' and '.join(missing)} of its training"
        )
    settings = validate({"model": "onnx", **({"input_size": size} if size else {}), **values})
    return OnnxNetwork(settings, file, onnx_model=model)


def _read_model(file: Path, threads: int) -> OnnxModel:
    """Return the file's network, which must take any number of images and give one output."""
    try:
        model = OnnxModel(file, threads)
    except UserError:
        raise
    except Exception as error:  # onnxruntime's errors have no common base
        reason = one_line(error)
        raise CheckpointError(f"{file} is damaged or not an ONNX network: {reason}") from error
    inputs, outputs = model.session.get_inputs(), model.session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise CheckpointError(
            f"{file} has {counted(len(inputs), 'input')} and {counted(len(outputs), 'output')}: "
            "it must have one of each, images and their logits or probabilities"
        )
    shape = inputs[0].shape
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
        raise CheckpointError(f"{file} takes inputs {shape}, not images [batch, 3, height, width]")
    if isinstance(shape[0], int):
        raise CheckpointError(
            f"{file} takes batches of {counted(shape[0], 'image')} only: export it with a batch "
            "size that is free"
        )
    return model


def _input_size(model: OnnxModel) -> tuple[int, int] | None:
    height, width = model.session.get_inputs()[0].shape[2:]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _read_metadata(
    file: Path, metadata: Mapping[str, str], overrides: Mapping[str, Any]
) -> Checkpoint:
    """Return what the metadata says, as a checkpoint without weights.

    Until version 0.3.0 it had no settings, and the overrides have to name the data set.
    """
    if "settings" not in metadata and "dataset" not in overrides:
        raise SettingsError(
            f"{file} was written by an earlier version and does not name its data set: pass "
            "--dataset, and --data-dir for a folder"
        )
    try:
        about = {name: json.loads(metadata[name]) for name in ABOUT}
        settings = {
            "model": metadata["model"],
            "input_size": about.pop("input_size"),
            **json.loads(metadata.get("settings", "{}")),
        }
        return Checkpoint(
            model=metadata["model"],
            settings=validate({"dataset": overrides.get("dataset", "cifar10"), **settings}),
            metrics={},
            state_dict={},
            test_sha256=metadata.get("test_sha256"),
            **about,
        )
    except (ValueError, TypeError, SettingsError) as error:
        raise CheckpointError(f"{file} has metadata that this version cannot read") from error
