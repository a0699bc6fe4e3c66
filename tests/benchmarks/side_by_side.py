"""Accuracy against minutes of networks of one size, each given the same time on the same machine.

`compact` under `best`; cifar10-tiniest's network under its own recipe (peer.py); a ResNet-14 under
`best` (control.py), for what the recipe brings without the network. One after another, each for as
many epochs as fit into the minutes, which a trial on a tenth of the images tells. Minutes are those
of training, data and augmentation included; start-up and evaluation are not. Prints JSON with each
side's curve, which it draws too; the test images choose nothing, the last point is the result.

    python tests/benchmarks/side_by_side.py FOLDER [--minutes 30] [--plot FILE.png]
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
IMAGES, TRIAL = 50_000, 5_000
OURS = {"compact": "compact", "ResNet-14, recipe of compact": f"{HERE / 'control.py'}:Control"}
PEER = "cifar10-tiniest, its own recipe"


def run_ours(model, folder, epochs, limit):
    """Return the curve of a run of this program."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "cifar_cnn", "train", "--model", model]
        command += ["--recipe", "best", "--dataset", "folder", "--data-dir", folder]
        command += ["--epochs", str(epochs), "--limit-train", str(limit), "--no-report"]
        command += ["--output-dir", scratch, "--name", "run"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        minutes, curve = 0.0, []
        with (Path(scratch) / "run" / "metrics.csv").open() as file:
            for row in csv.DictReader(file):
                minutes += float(row["seconds"]) / 60
                curve.append({"minutes": minutes, "accuracy": float(row["eval_accuracy"])})
    return curve


def run_peer(folder, epochs, limit):
    """Return the curve of cifar10-tiniest's network."""
    command = [sys.executable, str(HERE / "peer.py"), folder, "--epochs", str(epochs)]
    command += ["--limit-train", str(limit), "--warmup-epochs", str(min(2, epochs / 10))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)["curve"]


def fitting(run, minutes):
    """Return the curve of as many epochs as take so many minutes."""
    trial = run(1, TRIAL)[-1]["minutes"] * IMAGES / TRIAL
    return run(max(int(minutes / trial), 1), IMAGES)


def draw(curves, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, curve in curves.items():
        minutes, accuracy = ([point[key] for point in curve] for key in ("minutes", "accuracy"))
        epochs = "epoch" if len(curve) == 1 else "epochs"
        last = f"{name}: {accuracy[-1]:.1%} after {len(curve)} {epochs}"
        axes.plot(minutes, [100 * each for each in accuracy], marker="o", markersize=4, label=last)
    axes.set(xlabel="minutes of training on this machine", ylabel="test accuracy, %", ylim=(0, 95))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--plot", default="side_by_side.png")
    arguments = parser.parse_args()
    folder, curves = arguments.folder, {}
    for name, model in OURS.items():
        curves[name] = fitting(lambda *a, m=model: run_ours(m, folder, *a), arguments.minutes)
    curves[PEER] = fitting(lambda *a: run_peer(folder, *a), arguments.minutes)
    print(json.dumps({"minutes": arguments.minutes, "curves": curves}, indent=2))
    draw(curves, arguments.plot)


if __name__ == "__main__":
    main()
