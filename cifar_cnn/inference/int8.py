"""Quantize an exported ONNX network to int8, unless it loses too much accuracy.

Source: Jacob et al., "Quantization and Training of Neural Networks" (2018), sections 2 and 3.
"""

from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import torch
from torch import Tensor

from cifar_cnn.data.dataset import Split, normalize
from cifar_cnn.errors import ExportError, SettingsError
from cifar_cnn.inference.evaluate import load_images
from cifar_cnn.inference.formats import INPUT, Exportable, capturing, measure_latency
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
    eval_split: str
    eval_images: int
    fp32: FileMeasures
    int8: FileMeasures


def quantize_checked(
    source: Exportable, fp32: bytes, count: int | None, max_drop: float
) -> tuple[bytes, Quantization]:
    """Return the int8 file, calibrated on `count` images, and the measures of both files.

    Raise an ExportError if it loses more than `max_drop` percentage points.
    """
    train = load_images(source.network, "train", None, None)
    count = min(CALIBRATION_IMAGES, len(train) // 2) if count is None else count
    if not 0 < count < len(train):
        raise SettingsError(f"--calibration-images {count} is invalid: give 1 to {len(train) - 1}")
    others, calibration = train.cut(count)
    compared, test = others.limited(MOST_COMPARED), load_images(source.network, None, None, None)
    int8 = _quantize(source, fp32, calibration.images)
    before, after = (_measure(source, file, compared, test) for file in (fp32, int8))
    drop = round(100 * (before.train_accuracy - after.train_accuracy), 6)
    if drop > max_drop:
        raise ExportError(
            f"int8 loses {drop:.2f} percentage points on {len(compared)} training images: nothing "
            f"was written; try other --calibration-images, or more than --max-drop {max_drop:g}"
        )
    return int8, Quantization(
        calibration_images=count,
        compared_images=len(compared),
        eval_split=test.name,
        eval_images=len(test),
        fp32=before,
        int8=after,
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
            proto,
            file,
            SimpleNamespace(get_next=lambda: next(batches, None)),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,  # on x86 a third faster than QInt8
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[node.name for node in first],
        )
        proto = onnx.load(file)
    for each in proto.metadata_props:
        each.value = "int8" if each.key == "precision" else each.value
    return bytes(proto.SerializeToString())


def _measure(source: Exportable, file: bytes, compared: Split, test: Split) -> FileMeasures:
    model, accuracies = OnnxModel(file), []
    for data in (compared, test):
        answers = predict_log_probabilities(
            model, data.images, CPU, "fp32", normalization=source.network.normalization
        )
        if len(data) > 1 and torch.equal(answers, answers[:1].expand_as(answers)):
            raise ExportError("the network gives the same answer for all images: train it first")
        accuracies.append(judge(answers, data).accuracy)
    return FileMeasures(
        size=len(file),
        milliseconds=measure_latency(model.run, source.example[:1]),
        train_accuracy=accuracies[0],
        eval_accuracy=accuracies[1],
    )
