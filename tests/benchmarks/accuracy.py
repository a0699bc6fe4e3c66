"""Accuracy of one network under one recipe, the test images looked at once, at the end.

Trains as `cifar-cnn train` does, only without evaluating after each epoch, and prints JSON: the
final model's accuracy, plainly and averaged with each image's mirror image, and that of the last
weights, where the recipe averages weights.

    python tests/benchmarks/accuracy.py FOLDER --model compact --recipe best --limit-train 5000
"""

import argparse
import json
import sys
from pathlib import Path

from cifar_cnn import resolve_settings
from cifar_cnn.allocator import keep_freed_memory
from cifar_cnn.inference.evaluate import judge
from cifar_cnn.inference.forward import predict_log_probabilities
from cifar_cnn.training.run import Run


def main():
    keep_freed_memory()  # as the program does
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--recipe", default="best")
    parser.add_argument("--limit-train", type=int, default=50_000)
    parser.add_argument("--val-size", type=int, default=0, help="evaluate these, not the test set")
    parser.add_argument("--batch-size", type=int, help="in place of the recipe's")
    parser.add_argument("--lr", type=float, help="in place of the recipe's")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    settings = given | {"dataset": "folder", "data_dir": given["folder"]}
    del settings["folder"]
    trainer = Run(resolve_settings(settings)).trainer
    seconds = 0.0
    for epoch in range(trainer.settings.epochs):
        trainer.epoch, trainer.index, trainer.seconds = epoch, 0, 0.0
        trainer.train_epoch()
        seconds += trainer.seconds
        print(f"epoch {epoch} done", file=sys.stderr, flush=True)

    def accuracy(model, *, tta=False):
        images, precision = trainer.evaluation.images, trainer.settings.precision
        answers = predict_log_probabilities(model, images, trainer.device, precision, tta=tta)
        return judge(answers, trainer.evaluation).accuracy

    report = {
        **{name: value for name, value in given.items() if name != "folder"},
        "images_per_second": trainer.settings.epochs * trainer.batches.count / seconds,
        "accuracy": accuracy(trainer.model),
        "accuracy_with_mirror_images": accuracy(trainer.model, tta=True),
        "accuracy_of_last_weights": accuracy(trainer.model),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
