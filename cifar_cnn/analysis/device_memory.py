"""Flash and RAM that a network takes on a small device, from its run on one image.

README.md, "Does it fit my chip?", has the definitions. Flash is what onnxruntime's static
quantization stores for each channel, without zero points and the scales of biases. RAM is the peak
of live activations, operation by operation in the order in which they run.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence

from torch import Tensor

from cifar_cnn.analysis.memory import storage_of
from cifar_cnn.analysis.results import DeviceMemory
from cifar_cnn.analysis.run import Run
from cifar_cnn.analysis.steps import Kind, Step, Value, used_steps

FLOAT = 4
"""Bytes of a float32 or int32."""
PRODUCTS = {"linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "mv"}


def measure_memory(run: Run, output: Value) -> DeviceMemory:
    """Return flash and RAM of a network that has run; operations without effect do not count."""
    used = {index: run.steps[index] for index in sorted(used_steps(run.steps, output) - {-1})}
    counts, sizes = zip(*_stored_sizes(used), (0, 0), strict=True)
    elements, peak = _find_peak(run.image, [*used.values()])
    return DeviceMemory(
        flash_int8=sum(sizes),
        flash_fp32=FLOAT * sum(counts),
        ram_int8=elements,
        ram_fp32=FLOAT * elements,
        peak=peak,
    )


def _stored_sizes(used: Mapping[int, Step]) -> Collection[tuple[int, int]]:
    """Return the numbers of each stored tensor, and its bytes in int8."""
    folded = _folded_normalizations(used)
    stored: dict[Hashable, tuple[int, int]] = {}
    for step in (step for step in used.values() if step not in folded.values()):
        weights, norm = step.weights, folded.get(step)
        fold = _key(norm.weights[0]) if norm else None  # a shared weight folds into copies
        channels = step.field.shape[1 if step.filter else -1] if _is_product(step) else 0
        for place, tensor in enumerate(weights):
            count = size = _count(tensor)
            if _is_product(step) and tensor.dim() > 1:
                size += FLOAT * channels
            elif _is_product(step) or (place and step.kind == Kind.NORMALIZATION):
                size *= FLOAT
            stored[_key(tensor), fold] = count, size
        if norm and all(tensor.dim() > 1 for tensor in weights):
            stored[_key(weights[0]), fold, "bias"] = channels, FLOAT * channels
    return stored.values()


def _folded_normalizations(used: Mapping[int, Step]) -> dict[Step, Step]:
    """Return the normalization that each convolution or linear layer takes in."""
    readers = Counter(value.made for step in used.values() for value in step.inputs)
    folded = {}
    for step in used.values():
        before = used.get(step.inputs[0].made)
        if step.op != "native_batch_norm" or step.outcome.spans or before is None:
            continue
        is_layer = before.filter is not None or len(before.field.shape) == 2  # not of tokens
        has_weight = any(tensor.dim() > 1 for tensor in before.weights)
        if _is_product(before) and is_layer and has_weight and readers[step.inputs[0].made] == 1:
            folded[before] = step
    return folded


def _is_product(step: Step) -> bool:
    return step.filter is not None or step.op in PRODUCTS


def _key(tensor: Tensor) -> Hashable:
    """Return the same key for tensors that hold the same numbers, as transposed ones do."""
    return storage_of(tensor), tensor.storage_offset(), _count(tensor)


def _count(tensor: Tensor) -> int:
    """Return how many numbers a tensor stores; an expanded one has more elements."""
    return min(tensor.numel(), tensor.untyped_storage().nbytes() // tensor.element_size())


def _find_peak(image: Tensor, steps: Sequence[Step]) -> tuple[int, str]:
    """Return the most elements that are alive at once, and where."""
    read = {storage for step in steps for storage in step.reads}
    uses = ((at, {*step.reads, *dict(step.writes)}) for at, step in enumerate(steps))
    last = {storage: at for at, storages in uses for storage in storages}
    live = {storage_of(image): image.numel()}
    most, place = 0, ""
    for at, step in enumerate(steps):
        first = step.writes[:1]  # other outputs may be unused, as the indices of a max pool
        new = dict(each for each in step.writes if each[0] in read or each in first)
        new = {storage: count for storage, count in new.items() if storage not in live}
        alive = sum(live.values()) + sum(new.values())
        ending = [live.get(each, 0) for each in step.reads if last[each] == at]
        is_pointwise = step.kind in {Kind.POINTWISE, Kind.NORMALIZATION} and step.op != "clone"
        if is_pointwise and max(ending, default=0) >= sum(new.values()):
            alive -= sum(new.values())  # in place
        if alive > most:
            most, place = alive, step.call.name or step.call.module or step.call.function
        live = {storage: n for storage, n in (live | new).items() if last.get(storage, -1) > at}
    return most, place
