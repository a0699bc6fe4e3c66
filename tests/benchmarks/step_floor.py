"""A training step's time against the time that its memory traffic alone would take.

Prints JSON. Traffic: each layer reads its input and writes its output forward; backward it reads
the gradient of its output and its input again and writes the gradient of its input; every weight is
read twice, its gradient written and read, weight and momentum read and written. Activations count 2
bytes under bf16, else 4, weights always 4. Bandwidth: of a copy of 256 MB on the same device, read
and written. What a cache keeps from one layer to the next makes the true floor lower.

    python tests/benchmarks/step_floor.py [--device cuda] [--recipe tuned] [--batch-size 128]
"""

import argparse
import json
import time

import torch

from cifar_cnn import resolve_settings
from cifar_cnn.allocator import keep_freed_memory
from cifar_cnn.training.run import Run

COPIED = 256 << 20  # bytes


def traffic(model, images, bytes_each):
    """Return the bytes that a step moves, in the terms above."""
    activations = 0

    def count(module, inputs, output):
        nonlocal activations
        activations += 3 * inputs[0].numel() + 2 * output.numel()

    leaves = [module for module in model.modules() if not [*module.children()]]
    hooks = [module.register_forward_hook(count) for module in leaves]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    weights = sum(parameter.numel() for parameter in model.parameters())
    return activations * bytes_each + weights * 4 * 8


def seconds(work, device, times):
    """Return the mean seconds of one call."""
    work()
    finish(device)
    started = time.perf_counter()
    for _ in range(times):
        work()
    finish(device)
    return (time.perf_counter() - started) / times


def finish(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main():
    keep_freed_memory()  # as the program does
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--recipe", default="tuned")
    parser.add_argument("--batch-size", type=int, default=128)
    settings = vars(parser.parse_args())
    trainer = Run(resolve_settings({**settings, "dataset": "synthetic"})).trainer
    device, size = trainer.device, settings["batch_size"]
    trainer.learn()  # the first use captures, where there is something to capture
    images, labels, _ = trainer.batches.at(0, 0)
    update = trainer.update.graphed or trainer.training_step.update
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * COPIED / seconds(lambda: target.copy_(source), device, 20)
    moved = traffic(trainer.model, images, 2 if trainer.settings.precision == "bf16" else 4)
    step = seconds(lambda: update(images, labels), device, 100)
    report = {
        "device": str(device),
        "precision": trainer.settings.precision,
        "batch_size": size,
        "bytes": moved,
        "bytes_per_second": bandwidth,
        "floor_ms": 1000 * moved / bandwidth,
        "step_ms": 1000 * step,
        "whole_step_ms": 1000 * seconds(trainer.learn, device, 100),
        "step / floor": step * bandwidth / moved,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
