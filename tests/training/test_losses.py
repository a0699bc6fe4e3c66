"""The losses of a few steps of each recipe, as they were stored."""

import json
import os
from pathlib import Path

import pytest
import torch

from cifar_cnn.data.synthetic import draw_synthetic
from cifar_cnn.models import build_model
from cifar_cnn.settings import resolve_settings
from cifar_cnn.training.trainer import Trainer

STORED = Path(__file__).parent / "losses.json"
RUNS = {
    "reference": {"recipe": "reference"},
    "tuned": {"recipe": "tuned"},
    "best": {"recipe": "best", "model": "compact"},
}


@pytest.mark.parametrize("name", RUNS)
def test_losses_are_those_that_were_stored(name):
    same = {"dataset": "synthetic", "epochs": 2, "precision": "fp32", "threads": 1}
    settings = resolve_settings({**RUNS[name], **same, "batch_size": 64})
    split = draw_synthetic("test").limited(320)
    torch.manual_seed(settings.seed)
    model = build_model(settings.model, dropout=settings.dropout)
    losses = []
    trainer = Trainer(
        settings,
        model,
        split,
        split,
        tell=lambda event: losses.append(event.loss),
    )
    losses += [row.eval_loss for row in trainer.epochs()]
    stored = json.loads(STORED.read_text())
    if os.environ.get("STORE"):
        stored[name] = losses
        STORED.write_text(json.dumps(stored, indent=1) + "\n")
    assert losses == pytest.approx(stored[name], rel=1e-4)
