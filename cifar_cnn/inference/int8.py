"""Quantize an exported ONNX network to int8, unless it loses too much accuracy.

Weights become int8 with a scale for each channel, activations uint8 with one scale for each tensor,
from their least and largest value on some training images. Source: Jacob et al., "Quantization and
Training of Neural Networks" (2018), sections 2 and 3.
"""

from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

from cifar_cnn.data.dataset import Progress, Split, normalize
from cifar_cnn.errors import ExportError, SettingsError, counted
from cifar_cnn.inference.evaluate import load_images
from cifar_cnn.inference.formats import INPUT, Exportable, capturing, measure_latency, run_onnx
from cifar_cnn.inference.metrics import judge
from cifar_cnn.inference.onnx_file import OnnxModel
from cifar_cnn.inference.trained import predict_log_probabilities
from cifar_cnn.results import Result, Share
from cifar_cnn.runtime import CPU

CALIBRATION_IMAGES, MAX_DROP = 500, 1.0
"""Training images that set the scales, and percentage points of accuracy that may be lost."""
MOST_COMPARED = 5000
AT_ONCE = 100
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
"""Operators that have weights. Those before the first one, such as normalization, stay float."""


class Int8Options(NamedTuple):
    """What a user says of the quantization; without a number of images CALIBRATION_IMAGES.

    If the run has fewer than twice as many training images, it is half of them.
    """

    calibration_images: int | None
    max_drop: float


class FileMeasures(Result):
    """Bytes, latency of one image, and accuracy on training and test images of one file."""

    size: int
    milliseconds: float
    train_accuracy: Share
    eval_accuracy: Share


class Quantization(Result):
    """An int8 file beside the same network in fp32.

    `train_accuracy` is of `compared_images` training images that are not among those of the
    calibration; `eval_accuracy` of the `eval_images` images of the split `eval_split`.
    """

    calibration_images: int
    compared_images: int
    max_drop: float
    eval_split: str
    eval_images: int
    fp32: FileMeasures
    int8: FileMeasures


def quantize_checked(
    source: Exportable, fp32: bytes, options: Int8Options, progress: Progress | None
) -> tuple[bytes, Quantization]:
    """Return the int8 file of an fp32 one, and the measures of both.

    Raises:
        ExportError: it cannot be quantized, or loses more accuracy than the options allow.
    """
    network = source.network
    train = load_images(network, "train", None, progress)
    count = options.calibration_images or min(CALIBRATION_IMAGES, len(train) // 2)
    if not 0 < count < len(train):
        raise SettingsError(
            f"calibration_images {count} leaves none of {counted(len(train), 'training image')} to "
            "compare the files on: make it smaller"
        )
    calibration, others = train.divided(count)
    compared = others.cut(MOST_COMPARED)[1] if len(others) > MOST_COMPARED else others
    test = load_images(network, None, network.settings.limit_eval, progress)
    int8 = _quantize(source, fp32, calibration.images)

    files = {"fp32": fp32, "int8": int8}
    train_accuracy = {name: _measure_accuracy(source, files[name], compared) for name in files}
    drop = 100 * (train_accuracy["fp32"] - train_accuracy["int8"])
    if drop > options.max_drop:
        raise ExportError(
            f"int8 loses {drop:.2f} percentage points of accuracy on "
            f"{counted(len(compared), 'training image')} ({train_accuracy['fp32']:.2%} to "
            f"{train_accuracy['int8']:.2%}), more than --max-drop {options.max_drop:g}: nothing "
            "was written; try more --calibration-images"
        )
    measures = {
        name: FileMeasures(
            size=len(content),
            milliseconds=measure_latency(run_onnx(content), source.example[:1]),
            train_accuracy=train_accuracy[name],
            eval_accuracy=_measure_accuracy(source, content, test),
        )
        for name, content in files.items()
    }
    return int8, Quantization(
        calibration_images=count,
        compared_images=len(compared),
        max_drop=options.max_drop,
        eval_split=test.name,
        eval_images=len(test),
        **measures,
    )


def _quantize(source: Exportable, fp32: bytes, images: Tensor) -> bytes:
    """Return the int8 file; uint8 images (N, 3, H, W) set the scales of the activations."""
    import onnx
    import onnxruntime
    from onnxruntime import quantization

    normalization, takes_pixels = source.network.normalization, source.example.dtype == torch.uint8
    batches = (
        {INPUT: (batch if takes_pixels else normalize(batch, normalization)).numpy()}
        for batch in torch.split(images, AT_ONCE)
    )
    with capturing(source.model, "to int8"), TemporaryDirectory() as folder:
        folded, quantized = Path(folder, "folded.onnx"), Path(folder, "quantized.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        onnxruntime.InferenceSession(fp32, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(folded).graph.node
        quantization.quantize_static(
            *(folded, quantized, SimpleNamespace(get_next=lambda: next(batches, None))),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,  # int8 takes half as long again on x86
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[
                node.name for node in takewhile(lambda each: each.op_type not in WEIGHTED, nodes)
            ],
        )
        proto = onnx.load(quantized)
    used = {node.domain for node in proto.graph.node}
    versions = [each for each in proto.opset_import if each.domain in used]
    del proto.opset_import[:], proto.metadata_props[:]
    proto.opset_import.extend(versions)
    metadata = source.metadata | {"precision": "int8", "calibration_images": str(len(images))}
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    content: bytes = proto.SerializeToString()
    return content


def _measure_accuracy(source: Exportable, content: bytes, data: Split) -> float:
    """Return the accuracy of an ONNX file, or raise an error if it gives no usable answers."""
    normalization = source.network.normalization
    model = OnnxModel(content)
    answers = predict_log_probabilities(
        model, data.images, CPU, "fp32", normalization=normalization
    )
    if torch.equal(answers, answers[:1].expand_as(answers)):
        images = counted(len(data), f"{data.name} image")
        raise ExportError(f"the network gives the same answer for all of {images}: train it first")
    return judge(answers, data).accuracy
