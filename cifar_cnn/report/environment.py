"""Where a run ran, kept beside its results."""

import importlib.metadata
import json
import platform
from pathlib import Path

import torch

from cifar_cnn.training.events import Event, RunStarted
from cifar_cnn.training.run_files import ENVIRONMENT, write_file


def write_environment(event: Event) -> None:
    """Listener that writes environment.json when a run starts, or goes on."""
    if not isinstance(event, RunStarted):
        return
    device = event.device
    document = {
        "cifar_cnn": importlib.metadata.version("cifar-cnn"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "parameters": event.parameters,
    }
    content = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    write_file(event.directory / ENVIRONMENT, content.encode())


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # Linux, where platform.processor() is empty
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
