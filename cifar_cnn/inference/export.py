"""A trained network as a file for other programs, checked against PyTorch before it is written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cifar_cnn.data.dataset import normalize
from cifar_cnn.data.images import fit
from cifar_cnn.data.synthetic import draw_synthetic
from cifar_cnn.errors import ExportError, SettingsError, counted, did_you_mean
from cifar_cnn.inference.formats import (
    FORMATS,
    INPUT,
    Exportable,
    Runner,
    WithPreprocessing,
    check_onnx_is_installed,
    measure_latency,
)
from cifar_cnn.inference.int8 import Quantization, quantize_checked
from cifar_cnn.inference.trained import open_trained
from cifar_cnn.models.guard import guarded
from cifar_cnn.results import IfGiven, Pair, Result
from cifar_cnn.runtime import global_state_kept
from cifar_cnn.storage.files import check_folder, write_result
from cifar_cnn.storage.naming import SETTINGS, find_checkpoint
from cifar_cnn.storage.network import Network

OPSETS = range(18, 24)
"""Versions of ONNX's operators that torch's exporter writes without conversion."""
DEFAULT_OPSET = 20
CHECKED = 100
PHOTO = (90, 120)
TOLERANCE = 1e-4


class TensorFormat(Result):
    """What an exported network takes or gives; the first side of the shape is `batch`.

    Without a range, images are normalized, and outputs what the name says.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    range: Pair | None


class Exported(Result):
    """The exported file; for safetensors, `inputs` and `outputs` are of the network it is for.

    `size` is in bytes, `max_difference` the largest difference of an output from PyTorch's on
    CHECKED images, in fp32, `milliseconds` the median of TIMED runs on one image.
    """

    file: Path
    format: str
    size: int
    inputs: TensorFormat
    outputs: TensorFormat
    max_difference: float
    milliseconds: float
    int8: IfGiven[Quantization | None] = None


@global_state_kept()
def export(
    file: Path | str,
    format: str,  # noqa: A002 - the flag's name
    output: Path | str | None = None,
    *,
    with_preprocessing: bool = False,
    opset: int | None = None,
    int8: bool = False,
    calibration_images: int | None = None,
    max_drop: float | None = None,
    exist_ok: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Exported:
    """Export a checkpoint, if the exported network answers as PyTorch does.

    Args:
        file: `model.pt`, `best.pt` or `last.pt`.
        format: `onnx`, `torch-export` or `safetensors` (weights alone).
        output: the file to write; beside the checkpoint, with the format's ending, unless said.
        with_preprocessing: take uint8 RGB images and give probabilities, rather than what the
            network itself takes and gives.
        opset: version of ONNX's operators, 18 to 23; 20 unless said.
        int8: quantize the ONNX network, if it loses little accuracy on training images.
        calibration_images: training images that set the scales of int8; 500, or half, unless said.
        max_drop: percentage points of accuracy that int8 may lose; 1 unless said.
        exist_ok: replace the output where there is one.
        overrides: settings in place of the checkpoint's: model, and for int8 data_dir.

    Raises:
        CheckpointError: the checkpoint is unusable.
        DataError: the images for int8 are missing or unusable.
        ExportError: the network cannot be exported, answers otherwise, or the output exists.
        RequestError: the format or the opset is unknown, or they do not go together.
        UserError: the output cannot be written.
    """
    path = find_checkpoint(file)
    _check_request(format, with_preprocessing=with_preprocessing, opset=opset)
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise SettingsError(f"max_drop = {max_drop:g} is invalid: give points from 0 to 100")
    of_int8 = (calibration_images, max_drop, (overrides or {}).get("data_dir"))
    if (int8 and format != "onnx") or (not int8 and of_int8 != (None, None, None)):
        raise SettingsError(
            "--int8 is for --format onnx, and --calibration-images, --max-drop and --data-dir "
            "are for --int8"
        )
    suffix, write = FORMATS[format]
    target = Path(output or path.with_suffix(f".int8{suffix}" if int8 else suffix))
    if target.exists() and target.suffix != suffix and (target.parent / SETTINGS).exists():
        raise ExportError(f"{target} is a run's own file: choose another --output")
    if target.exists() and not exist_ok:
        raise ExportError(f"{target} exists: choose another --output, or --exist-ok to replace it")
    check_folder(target)
    network = open_trained(path, {"device": "cpu", **(overrides or {})}, allow_bare=False)
    model = WithPreprocessing(network) if with_preprocessing else network.model
    images = _example_images(network)
    answer = "probabilities"
    if not with_preprocessing:
        images = normalize(images, network.normalization)
        is_log = getattr(network.model, "outputs_log_probabilities", False)
        answer = "log_probabilities" if is_log else "logits"
    example = images[:2].clone()  # torch.export keeps it, with all the memory it is a part of
    source = Exportable(network, model, example, answer, opset or DEFAULT_OPSET)
    content, run = write(source)
    difference, quantization = _compare(model, run, images), None
    if int8:
        most = 1.0 if max_drop is None else max_drop
        content, quantization = quantize_checked(source, content, calibration_images, most)
    write_result(target, content)
    dtype, ends = ("uint8", (0, 255)) if with_preprocessing else ("float32", None)
    shape, answers = ("batch", *images.shape[1:]), ("batch", len(network.classes))
    return Exported(
        file=target,
        format=format,
        size=len(content),
        inputs=TensorFormat(name=INPUT, shape=shape, dtype=dtype, range=ends),
        outputs=TensorFormat(name=answer, shape=answers, dtype="float32", range=None),
        max_difference=difference,
        milliseconds=(
            quantization.int8.milliseconds if quantization else measure_latency(run, images[:1])
        ),
        int8=quantization,
    )


def _check_request(name: str, *, with_preprocessing: bool, opset: int | None) -> None:
    if name not in FORMATS:
        hint = did_you_mean(name, FORMATS)
        raise SettingsError(f"unknown format {name!r}{hint}: choose from {', '.join(FORMATS)}")
    if name == "safetensors" and with_preprocessing:
        raise SettingsError("safetensors holds weights alone: leave --with-preprocessing out")
    if name != "onnx" and opset is not None:
        raise SettingsError(f"--opset is for the format onnx, not for {name}")
    if opset is not None and opset not in OPSETS:
        raise SettingsError(
            f"opset {opset} is out of range: choose from {OPSETS.start} to {OPSETS.stop - 1}"
        )
    if name == "onnx":
        check_onnx_is_installed()


def _example_images(network: Network) -> Tensor:
    """Return CHECKED drawn images, uint8; half of them are photos, resized as `predict` does."""
    drawn = draw_synthetic("test").limited(CHECKED)
    size, half = network.settings.input_size, CHECKED // 2
    photos = drawn.resized(PHOTO).images[half:].permute(0, 2, 3, 1).numpy()
    resized = np.stack([fit(Image.fromarray(photo), size) for photo in photos])
    return torch.cat([drawn.resized(size).images[:half], torch.from_numpy(resized)])


@torch.no_grad()
def _compare(model: nn.Module, run: Runner, images: Tensor) -> float:
    """Return the largest difference of the two networks' outputs."""
    with guarded(f"the network fails on {counted(len(images), 'image')}", ExportError, model):
        expected = model(images)
        if not torch.allclose(expected, model(images), equal_nan=True):
            raise ExportError(
                "the network cannot be exported: it answers the same image differently each time, "
                "as dropout without training=self.training does"
            )
        difference = float((run(images) - expected).abs().max())
    allowed = TOLERANCE * max(1.0, expected.abs().max().item())
    if not difference <= allowed:  # a NaN is no agreement either
        raise ExportError(
            f"the exported network differs from PyTorch by {difference:.2g} on {len(images)} "
            f"images, more than {allowed:.2g}: nothing was written"
        )
    return difference
