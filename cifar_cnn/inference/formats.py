"""The formats that a network is exported to: how each is written, and how it is run again."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from cifar_cnn.data.dataset import normalize
from cifar_cnn.errors import ExportError
from cifar_cnn.models.guard import guarded
from cifar_cnn.models.module import weights_of
from cifar_cnn.models.output import log_probabilities
from cifar_cnn.storage.network import Network

SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT = "images"
METADATA = "cifar_cnn.json"

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


def write(
    name: str, network: Network, model: nn.Module, example: Tensor, output: str, opset: int
) -> tuple[bytes, Runner]:
    """Return the file of a format, and a function that runs it.

    `model` is the network's own or with preprocessing, `output` the name of what it returns.
    """
    about = {
        "model": network.settings.model,
        "classes": json.dumps(network.classes),
        "mean": json.dumps(network.normalization.mean),
        "std": json.dumps(network.normalization.std),
        "input_size": json.dumps(network.settings.input_size),
    }
    if name == "onnx":
        content = to_onnx(model, example, output, about, opset)
        return content, run_onnx(content)
    if name == "torch-export":
        content = to_torch_export(model, example, about)
        return content, run_torch_export(content)
    content = to_safetensors(network, about)
    return content, run_safetensors(network, content)


def to_onnx(
    model: nn.Module, example: Tensor, output: str, about: Mapping[str, str], opset: int
) -> bytes:
    """Return the ONNX file, batch size free, by torch's exporter of captured programs."""
    with _capturing(model):
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: Dim("batch")},),
            input_names=[INPUT],
            output_names=[output],
            opset_version=opset,
            verbose=False,
        )
        assert program is not None
        proto = program.model_proto
        if proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value:
            raise ExportError(
                "the network cannot be exported: to ONNX, its code fixes the batch size "
                f"at {len(example)} images"
            )
    for key, value in about.items():
        proto.metadata_props.add(key=key, value=value)
    content: bytes = proto.SerializeToString()
    return content


def run_onnx(content: bytes) -> Runner:
    """Return a function that runs the file with onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (output,) = session.run(None, {INPUT: images.numpy()})
        return torch.from_numpy(output)

    return run


def to_torch_export(model: nn.Module, example: Tensor, about: Mapping[str, str]) -> bytes:
    """Return the file of torch.export.save, batch size free."""
    buffer = io.BytesIO()
    with _capturing(model):
        program = torch.export.export(model, (example,), dynamic_shapes=({0: Dim("batch")},))
        torch.export.save(program, buffer, extra_files={METADATA: json.dumps(dict(about))})
    return buffer.getvalue()


def run_torch_export(content: bytes) -> Runner:
    """Return the file as a function."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner: Runner = torch.export.load(io.BytesIO(content)).module()
    return runner


def to_safetensors(network: Network, about: Mapping[str, str]) -> bytes:
    """Return the weights alone, with `about` in the file's metadata."""
    from safetensors.torch import save

    tensors = {
        name: value.clone(memory_format=torch.contiguous_format)
        for name, value in weights_of(network.model).items()
    }
    content: bytes = save(tensors, metadata=dict(about))
    return content


def run_safetensors(network: Network, content: bytes) -> Runner:
    """Return a network that is built anew and given the file's weights."""
    from safetensors.torch import load

    file = Path("the exported file")
    return replace(network, file=file, state_dict=load(content), checkpoint=None).model


def check_onnx_is_installed() -> None:
    """Raise an error if a package that ONNX export needs is not installed."""
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if missing:
        raise ExportError(f"format onnx needs {', '.join(missing)}: pip install '.[onnx]'")


@contextmanager
def _capturing(model: nn.Module) -> Iterator[None]:
    disabled = logging.root.manager.disable
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
