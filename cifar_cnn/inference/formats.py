"""The formats that a network is exported to: each is written, and can be run from its file."""

import io
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from cifar_cnn.data.dataset import normalize
from cifar_cnn.errors import ExportError
from cifar_cnn.inference.onnx_file import IMAGES_BY, OnnxModel
from cifar_cnn.models.blocks import folded
from cifar_cnn.models.guard import guarded
from cifar_cnn.models.module import weights_of
from cifar_cnn.models.output import log_probabilities
from cifar_cnn.storage.network import Network

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT = "images"
METADATA = "cifar_cnn.json"
WARM_UPS, TIMED = 20, 200

Runner = Callable[[Tensor], Tensor]


class WithPreprocessing(nn.Module):
    """A network from uint8 RGB images (N, 3, H, W) to float32 probabilities (N, classes)."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.model = network.model
        self.normalization = network.normalization

    def forward(self, images: Tensor) -> Tensor:
        """Normalize, run the network, turn its output into probabilities."""
        return log_probabilities(self.model, normalize(images, self.normalization)).exp()


@dataclass(frozen=True)
class Exportable:
    """A network as it is exported."""

    network: Network
    model: nn.Module  # the network's own, or with preprocessing
    example: Tensor  # images as the model takes them
    output: str  # name of what the model returns
    opset: int  # version of ONNX's operators

    @property
    def metadata(self) -> dict[str, str]:
        """What a file says of its network: text, or JSON."""
        settings, normalization = self.network.settings, self.network.normalization
        return {
            "model": settings.model,
            "classes": json.dumps(self.network.classes),
            "mean": json.dumps(normalization.mean),
            "std": json.dumps(normalization.std),
            "input_size": json.dumps(settings.input_size),
            "precision": "fp32",
            "settings": settings.model_dump_json(include=IMAGES_BY),
            "test_sha256": (self.network.checkpoint and self.network.checkpoint.test_sha256) or "",
        }


def write_onnx(source: Exportable) -> tuple[bytes, Runner]:
    """Write by torch's exporter of captured programs, batch size free; run with onnxruntime."""
    with capturing(source.model), folded(source.model):
        program = torch.onnx.export(
            source.model,
            (source.example,),
            dynamo=True,
            dynamic_shapes=({0: Dim("batch")},),
            input_names=[INPUT],
            output_names=[source.output],
            opset_version=source.opset,
            verbose=False,
        )
        assert program is not None
        proto = program.model_proto
        if proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value:
            raise ExportError(
                "the network cannot be exported: to ONNX, its code fixes the batch size "
                f"at {len(source.example)} images"
            )
    for part in (*proto.graph.node, *proto.graph.value_info, proto.graph):
        del part.metadata_props[:]  # stack traces: a quarter of the file
    for key, value in source.metadata.items():
        proto.metadata_props.add(key=key, value=value)
    content: bytes = proto.SerializeToString()
    return content, OnnxModel(content).run


def write_torch_export(source: Exportable) -> tuple[bytes, Runner]:
    """Write with torch.export, batch size free."""
    buffer, batch = io.BytesIO(), {0: Dim("batch")}
    with capturing(source.model):
        program = torch.export.export(source.model, (source.example,), dynamic_shapes=(batch,))
        torch.export.save(program, buffer, extra_files={METADATA: json.dumps(source.metadata)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner: Runner = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    return buffer.getvalue(), runner


def write_safetensors(source: Exportable) -> tuple[bytes, Runner]:
    """Write the weights alone; run a network that is built anew and given them."""
    from safetensors.torch import load, save

    weights = weights_of(source.network.model).items()
    tensors = {k: v.clone(memory_format=torch.contiguous_format) for k, v in weights}
    content: bytes = save(tensors, metadata=source.metadata)
    file = Path("the exported file")
    stored = replace(source.network, file=file, state_dict=load(content), checkpoint=None)
    return content, stored.model


FORMATS = {
    "onnx": (".onnx", write_onnx),
    "torch-export": (".pt2", write_torch_export),
    "safetensors": (".safetensors", write_safetensors),
}
"""By name: the ending of the file, and the function that writes it."""


def check_onnx_is_installed() -> None:
    """Raise an error if a package that ONNX export needs is not installed."""
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if missing:
        raise ExportError(f"format onnx needs {', '.join(missing)}: pip install '.[onnx]'")


@torch.no_grad()
def measure_latency(run: Runner, image: Tensor) -> float:
    """Return the median time of TIMED runs in milliseconds."""
    seconds = []
    for _ in range(WARM_UPS + TIMED):
        started = time.perf_counter()
        run(image)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds[WARM_UPS:])


@contextmanager
def capturing(model: nn.Module) -> Iterator[None]:
    """Turn an exporter's error into one line, and hide what the exporter prints and logs."""
    disabled, handlers = logging.root.manager.disable, [*logging.root.handlers]
    with (
        guarded("the network cannot be exported", ExportError, model),
        warnings.catch_warnings(),
        redirect_stderr(io.StringIO()),  # torch prints the graph of what it cannot capture
    ):
        warnings.simplefilter("ignore")
        logging.disable()
        try:
            yield
        except Exception as error:  # noqa: BLE001 - torch wraps the reason into advice on bugs
            raise error.__cause__ or error from None
        finally:
            logging.disable(disabled)
            logging.root.handlers[:] = handlers  # logging may add a handler
