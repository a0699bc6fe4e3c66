"""Networks of other people are trained as plain PyTorch trains them, or refused before a run."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import cifar_cnn
from cifar_cnn import plan_run
from cifar_cnn.api import dry_run, find_lr
from cifar_cnn.errors import ModelError, RunError
from cifar_cnn.training.distributed import ALONE
from cifar_cnn.training.history import RunStarted
from cifar_cnn.training.run import Run
from cifar_cnn.training.trial import train_once

NETS = """
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

class View(nn.Module):
    "The end of every tutorial's LeNet."
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 5, 4), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Linear(4 * 9, 3)
    def forward(self, x):
        return self.head(self.body(x).view(-1, 4 * 9))

class Ghost(View):
    def forward(self, x):
        assert x.is_contiguous()
        x = self.body(x)
        if self.training:
            n, c, h, w = x.shape
            halves = x.view(n // 2, 2 * c, h, w)
            x = F.batch_norm(halves, None, None, training=True).view(n, c, h, w)
        return self.head(x.reshape(len(x), -1))

class Squeezing(View):
    def forward(self, x):
        return super().forward(x).squeeze()

class Rank5(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernels = nn.Parameter(torch.randn(4, 16, 3, 3, 3) * 0.1)
        self.head = nn.Linear(16, 3)
    def forward(self, x):
        return self.head(F.conv2d(x, self.kernels.mean(0)).relu().mean((2, 3)))

class Shadowing(View):
    def __init__(self):
        super().__init__()
        self.body.train = None
        self.modules = [self.body]
        self.children = self.buffers = 0
    def train(self, loader, epochs=1):
        for batch in loader:
            pass
    def eval(self, images):
        return images + 1
    def parameters(self):
        return [self.body]
    def state_dict(self, name):
        return name

class Frozen(View):
    "Statistics that the author keeps as they are."
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self
    def forward(self, x):
        return super().forward(self.norm(x))

pruned = View()
prune.l1_unstructured(pruned.head, "weight", 0.5)

class Counting(View):
    "What an author keeps beside the weights."
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.seen, self.norms, self.steps = {}, [], 0
        self.body.register_forward_hook(self.look)
    def look(self, module, inputs, output):
        self.seen["body"] = output
    def forward(self, x):
        self.steps += 1
        self.norms.append(torch.rand(1))
        self.body(self.norm(x))
        return self.head(self.seen["body"].flatten(1))

class FullPrecision(View):
    def forward(self, x):
        made = torch.zeros(len(x), 3)
        made[torch.arange(len(x))] = super().forward(x)
        return made

class InPlace(View):
    def forward(self, x):
        y = torch.sigmoid(self.body(x))  # InPlace
        y += 1
        return self.head(y.flatten(1))

class Detached(View):
    def forward(self, x):  # Detached
        return super().forward(x).detach()

class InTraining(View):
    def forward(self, x):
        assert not self.training, "no"  # InTraining
        return super().forward(x)

class InEvaluation(View):
    def forward(self, x):
        if len(x) > 1 and not self.training:
            raise SystemExit("no")  # InEvaluation
        return super().forward(x)

class Stepping(View):
    def __init__(self):
        super().__init__()
        self.head.weight.register_hook(lambda gradient: gradient.to_sparse())  # no line of theirs

class Tuple(View):
    def forward(self, x):
        answers = super().forward(x)
        return (answers, answers) if self.training else answers

class ExtraState(View):
    def get_extra_state(self):
        return {"steps": 1}

class Complex(View):
    def __init__(self):
        super().__init__()
        self.register_buffer("phase", torch.zeros(2, dtype=torch.complex64))

flat = nn.Flatten()

class Answers(View):
    def forward(self, x):
        return self.head(self.body(x).mean().view(1, 1).expand(1, 144).reshape(-1, 36))  # Answers
"""


@pytest.fixture
def settings_of(tmp_path, monkeypatch, small_settings):
    (tmp_path / "author.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    return lambda name, **more: small_settings(model=f"author.py:{name}", epochs=1, **more)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, "fp32") for name in ("View", "Ghost", "Rank5", "Shadowing", "pruned", "Counting")),
        ("View", "bf16"),
        ("Shadowing", "bf16"),
        ("Squeezing", "bf16"),
    ],
)
def test_what_plain_pytorch_trains_is_trained_and_used(settings_of, tmp_path, name, precision):
    settings = settings_of(name, precision=precision, batch_size=12)
    result = cifar_cnn.train(settings, tmp_path / "run", report=False)
    assert result.steps == 3
    model = {"model": settings.model}
    assert cifar_cnn.evaluate(result.model_file, overrides=model).samples == 12
    assert cifar_cnn.export(result.model_file, "safetensors", overrides=model).max_difference == 0


def test_statistics_that_the_author_freezes_stay(settings_of):
    trainer = Run(settings_of("Frozen"), ALONE).trainer
    trainer.train_epoch()
    assert trainer.model.training
    assert trainer.model.norm.num_batches_tracked == 0


def test_what_fails_in_bf16_alone_is_trained_in_fp32_and_goes_on_so(settings_of, tmp_path):
    told = []
    settings = settings_of("FullPrecision", precision="bf16")
    run = cifar_cnn.train(settings, tmp_path / "run", report=False, listeners=[told.append]).run
    (started,) = (event for event in told if isinstance(event, RunStarted))
    (note,) = (note for note in started.notes if "this run computes" in note)
    assert note.startswith("this run computes in fp32: in bf16 the network fails on a training")
    assert "(author.py:" in note
    assert 'precision = "fp32"' in (run / "settings.toml").read_text()
    given = {"model": settings.model, "precision": "auto", "epochs": 2}
    assert plan_run(given, resume=run).settings.precision == "fp32"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("InPlace", "modified by an inplace operation.*{place}"),
        ("Detached", "does not require grad.*{place}"),
        ("InTraining", "AssertionError: no{place}"),
        ("InEvaluation", "SystemExit: no{place}"),
        ("Stepping", "RuntimeError: .*"),
        ("Tuple", "in training the network returns tuple, not one tensor: have .*"),
        ("ExtraState", "cannot be saved: _extra_state of its state dict is dict, not a tensor"),
        ("Complex", "cannot be saved: .*ComplexFloatStorage.*"),
        ("flat", r"needs \(1, 3\).*"),
        ("Answers", "gives 4 answers for one image: reshape{place} takes places for images.*"),
    ],
)
def test_what_cannot_be_trained_or_saved_is_one_line_and_leaves_no_folder(
    settings_of, tmp_path, name, said
):
    settings = settings_of(name, precision="bf16")
    line = NETS[: NETS.find(f"# {name}\n")].count("\n") + 1
    said = said.format(place=rf" \(author.py:{line}\)")
    for start in (dry_run, find_lr, lambda each: cifar_cnn.train(each, tmp_path / "run")):
        with pytest.raises((RunError, ModelError), match=f"{said}$") as caught:
            start(settings)
        assert "\n" not in str(caught.value)
        is_of_step = name not in {"ExtraState", "Complex", "flat", "Answers"}
        assert caught.value.exit_status == (1 if is_of_step else 2)
    assert not (tmp_path / "run").exists()


def everything(model):
    """Return all that a network and the random numbers hold: tensors, and the rest."""
    tensors = [torch.get_rng_state(), *(value.clone() for value in model.state_dict().values())]
    kept = [[*model.seen], [*model.norms], model.steps, model.norm.training]
    return tensors, [*kept, random.getstate(), str(np.random.get_state())]  # noqa: NPY002


def test_a_trial_changes_nothing(settings_of):
    trainer = Run(settings_of("Counting"), ALONE).trainer
    before = everything(trainer.model)
    assert train_once(trainer) > 0
    after = everything(trainer.model)
    assert all(torch.equal(*pair) for pair in zip(before[0], after[0], strict=True))
    assert before[1] == after[1]
    assert all(p.grad is None for p in trainer.model.parameters())
    assert isinstance(trainer.model.body, nn.Sequential)
