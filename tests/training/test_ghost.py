"""A batch as ghost batches, against the same computed one part after another by plain PyTorch."""

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

import cifar_cnn
from cifar_cnn.errors import RunError
from cifar_cnn.models import build_model
from cifar_cnn.runtime import torch_threads, worker_threads
from cifar_cnn.settings import resolve_settings
from cifar_cnn.storage.checkpoint import read_checkpoint
from cifar_cnn.training.distributed import ALONE, Processes
from cifar_cnn.training.step import TrainingStep
from cifar_cnn.training.update import GhostBatches


def make_ghosts(threads=2, processes=ALONE, **settings):
    settings = {"batch_size": 10, "ghost_batch_size": 4, "precision": "fp32"} | settings
    settings = resolve_settings({"label_smoothing": 0, "weight_decay": 0} | settings)
    torch.manual_seed(0)
    model = build_model("baseline", 3, settings.dropout).train()
    step = TrainingStep(settings, model, processes)
    return GhostBatches(step, threads)


def a_batch(count=10):
    source = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, 16, 16, generator=source)
    return images, torch.randint(0, 3, (count,), generator=source)


def learn(ghosts, images, labels):
    ghosts.step.prepare(0, 0.1, ALONE.part(len(images)))
    ghosts.update(lambda part: (images[part], labels[part], None), 7)
    return [p.grad.clone() for p in ghosts.parameters]


@pytest.mark.parametrize(
    ("images", "size", "expected"),
    [(slice(0, 128), 64, [64, 64]), (slice(5, 15), 4, [3, 3, 4]), (slice(0, 1), 64, [1])],
)
def test_parts_are_as_equal_as_they_can_be_and_none_is_too_large(images, size, expected):
    cut = make_ghosts(ghost_batch_size=size, batch_size=128).cut(images)
    assert [part.stop - part.start for part in cut] == expected
    assert (cut[0].start, cut[-1].stop) == (images.start, images.stop)
    assert all(one.stop == other.start for one, other in pairwise(cut))


def test_gradients_are_those_of_the_whole_mean_loss_and_statistics_the_mean_of_the_parts():
    ghosts = make_ghosts()
    images, labels = a_batch()
    model = copy.deepcopy(ghosts.step.model)
    buffers = []
    loss = 0
    for part in (slice(0, 3), slice(3, 6), slice(6, 10)):
        network = copy.deepcopy(model, {id(p): p for p in model.parameters()})
        loss = loss + F.nll_loss(network(images[part]), labels[part], reduction="sum") / 10
        buffers.append(dict(network.named_buffers()))
    expected = torch.autograd.grad(loss, list(model.parameters()))
    for got, gradient in zip(learn(ghosts, images, labels), expected, strict=True):
        torch.testing.assert_close(got, gradient, rtol=1e-4, atol=1e-6)
    assert ghosts.step.totals.read().last_loss == pytest.approx(loss.item(), rel=1e-5)
    for name, kept in ghosts.step.model.named_buffers():
        own = torch.stack([each[name] for each in buffers])
        mean = own.mean(0) if own.is_floating_point() else own[0]
        torch.testing.assert_close(kept, mean, rtol=1e-5, atol=1e-6)


def test_one_part_is_the_whole_step_to_the_bit():
    ghosts = make_ghosts(ghost_batch_size=64)
    whole = copy.deepcopy(ghosts.step.model)
    images, labels = a_batch()
    with torch_threads(2):
        loss = F.nll_loss(whole(images), labels)
        expected = torch.autograd.grad(loss, list(whole.parameters()))
    got = learn(ghosts, images, labels)
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


def test_each_part_and_each_process_drops_other_elements():
    images, labels = a_batch(1)
    images, labels = images.repeat(8, 1, 1, 1), labels.repeat(8)
    ghosts = make_ghosts(dropout=0.5, batch_size=8)
    replicas = [each.model for each in ghosts.replicas]
    outputs = []
    hooks = [each.register_forward_hook(lambda *a: outputs.append(a[2])) for each in replicas]
    learn(ghosts, images, labels)
    for hook in hooks:
        hook.remove()
    assert len(outputs) == 2
    assert not torch.equal(*outputs)
    second = make_ghosts(dropout=0.5, batch_size=8, processes=Processes(rank=1))
    assert second.step.processes.rank * second.count == len(replicas)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_number_of_threads_changes_no_bit(small_settings, tmp_path, precision):
    """Eight images a step in four parts: more threads than parts would help inside them."""
    weights = []
    for threads in (1, 2, 4):
        settings = small_settings(
            threads=threads, ghost_batch_size=2, dropout=0.1, precision=precision, epochs=3
        )
        run = cifar_cnn.train(settings, tmp_path / str(threads), report=False).run
        weights.append(read_checkpoint(run / "model.pt").state_dict)
    for other in weights[1:]:
        assert all(torch.equal(weights[0][name], other[name]) for name in other)


def test_training_leaves_torch_s_own_number_of_threads_alone(small_settings, tmp_path):
    before = torch.get_num_threads()
    for number, changes in enumerate(({"ghost_batch_size": 4}, {"ghost_batch_size": 0})):
        settings = small_settings(threads=before + 1, epochs=1, **changes)
        cifar_cnn.train(settings, tmp_path / str(number), report=False)
        assert torch.get_num_threads() == before


def test_an_error_in_a_part_is_that_of_the_step():
    ghosts = make_ghosts()
    images, labels = a_batch()
    before = [p.clone() for p in ghosts.parameters]

    def fail(part):
        if part.start:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return images[part], labels[part], None

    ghosts.step.prepare(0, 0.1, ALONE.part(10))
    with pytest.raises(RunError, match="out of memory on cpu"):
        ghosts.update(fail, 7)
    assert all(torch.equal(a, b) for a, b in zip(before, ghosts.parameters, strict=True))


@pytest.mark.parametrize(
    ("threads", "most", "inside"), [(1, 4, 1), (2, 4, 1), (8, 4, 2), (3, 1, 3)]
)
def test_threads_beyond_the_items_help_inside_them(threads, most, inside):
    with worker_threads(threads, most) as workers:
        found = workers.map(lambda _: torch.get_num_threads(), range(most))
        assert [*found] == [inside] * most
