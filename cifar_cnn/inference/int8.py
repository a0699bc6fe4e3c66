"""Quantize an exported ONNX network to int8, unless it loses too much accuracy.

Weights become int8 with a scale for each channel, activations uint8 with one scale for each tensor,
from their extremes on training images. Source: Jacob et al., "Quantization and Training of Neural
Networks" (2018), sections 2 and 3; the exporter has folded the normalizations, as in section 3.2.
"""

from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import torch
from torch import Tensor

from cifar_cnn.data.dataset import Progress, Split, normalize
from cifar_cnn.errors import ExportError, SettingsError, counted
from cifar_cnn.inference.evaluate import load_images
from cifar_cnn.inference.formats import INPUT, Exportable, add_metadata, capturing, measure_latency
from cifar_cnn.inference.metrics import judge
from cifar_cnn.inference.onnx_file import OnnxModel
from cifar_cnn.inference.trained import predict_log_probabilities
from cifar_cnn.results import Result, Share
from cifar_cnn.runtime import CPU

CALIBRATION_IMAGES, MOST_COMPARED, AT_ONCE = 500, 5000, 100
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
"""Operators that have weights. What comes before the first, as normalization does, stays float."""


class FileMeasures(Result):
    """Bytes of a file, milliseconds for one image, accuracy on training and on test images."""

    size: int
    milliseconds: float
    train_accuracy: Share
    eval_accuracy: Share


class Quantization(Result):
    """A network in fp32 and in int8; the training images compared are none of the calibration."""

    calibration_images: int
    compared_images: int
    max_drop: float
    eval_split: str
    eval_images: int
    fp32: FileMeasures
    int8: FileMeasures


def quantize_checked(
    source: Exportable, fp32: bytes, count: int | None, max_drop: float, progress: Progress | None
) -> tuple[bytes, Quantization]:
    """Return the int8 file, calibrated on `count` images, and the measures of both files.

    Raise an ExportError if it loses more than `max_drop` percentage points.
    """
    train = load_images(source.network, "train", None, progress)
    count = min(CALIBRATION_IMAGES, len(train) // 2) if count is None else count
    if not 0 < count < len(train):
        raise SettingsError(
            f"--calibration-images {count} is invalid: of {counted(len(train), 'training image')} "
            "at least one is needed for calibration, and one to compare the files on"
        )
    calibration, others = train.divided(count)
    compared = others.limited(MOST_COMPARED)
    test = load_images(source.network, None, None, progress)
    files = {"fp32": fp32, "int8": _quantize(source, fp32, calibration.images)}
    before, after = (_measure_accuracy(source, file, compared) for file in files.values())
    drop = 100 * (before - after)
    if not drop <= max_drop:
        raise ExportError(
            f"int8 loses {drop:.2f} percentage points on {len(compared)} training images "
            f"({before:.2%} to {after:.2%}), more than --max-drop {max_drop:g}: nothing was written"
        )
    measures = {
        name: FileMeasures(
            size=len(file),
            milliseconds=measure_latency(OnnxModel(file).run, source.example[:1]),
            train_accuracy=accuracy,
            eval_accuracy=_measure_accuracy(source, file, test),
        )
        for (name, file), accuracy in zip(files.items(), (before, after), strict=True)
    }
    return files["int8"], Quantization(
        calibration_images=count,
        compared_images=len(compared),
        max_drop=max_drop,
        eval_split=test.name,
        eval_images=len(test),
        **measures,
    )


def _quantize(source: Exportable, fp32: bytes, images: Tensor) -> bytes:
    """Return the int8 file; uint8 images (N, 3, H, W) set the scales of the activations."""
    import onnx
    from onnxruntime import quantization

    if source.example.dtype != torch.uint8:
        images = normalize(images, source.network.normalization)
    batches = ({INPUT: batch.numpy()} for batch in torch.split(images, AT_ONCE))
    proto = onnx.load_from_string(fp32)
    first = takewhile(lambda node: node.op_type not in WEIGHTED, proto.graph.node)
    with capturing(source.model), TemporaryDirectory() as folder:
        file = Path(folder, "int8.onnx")
        quantization.quantize_static(
            *(proto, file, SimpleNamespace(get_next=lambda: next(batches, None))),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,  # on x86 a third faster than QInt8
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[node.name for node in first],
        )
        proto = onnx.load(file)
    return add_metadata(proto, source.metadata | {"precision": "int8"})


def _measure_accuracy(source: Exportable, file: bytes, data: Split) -> float:
    answers = predict_log_probabilities(
        OnnxModel(file), data.images, CPU, "fp32", normalization=source.network.normalization
    )
    if len(data) > 1 and torch.equal(answers, answers[:1].expand_as(answers)):
        raise ExportError("the network gives the same answer for all images: train it first")
    return judge(answers, data).accuracy
