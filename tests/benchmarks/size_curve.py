"""Accuracy against parameters: `compact` in five sizes, and a ResNet-14 in the same sizes.

For each limit on the parameters: the network that `cifar-cnn design` finds, and control.py's with
as many channels as the limit allows; both under `best`, with or without cutout as `compact` of that
size. A stopped series goes on where it was if `--runs` names its folder again. Prints JSON, and
draws it.

    python tests/benchmarks/size_curve.py FOLDER [--runs DIR] [--plot FILE.png] [--threads N]
"""

import argparse
import json
import statistics
import subprocess
import sys

import control

from cifar_cnn import resolve_settings

LIMITS = (12_500, 25_000, 50_000, 100_000, 200_000)
SERIES = (
    ("compact", 10, (0, 1, 2)),
    ("compact", 30, (0,)),
    ("ResNet-14", 10, (0,)),
    ("ResNet-14", 30, (0,)),
)
"""Network, epochs and seeds."""


def run_json(*words):
    """Return what a command of the program prints; `design` and `summary` may say no."""
    command = [sys.executable, "-m", "cifar_cnn", *map(str, words), "--json"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)


def find_networks(limit):
    """Return the width of `compact`, and for each network its model and argument."""
    sizes = {n: sum(p.numel() for p in control.Control(n).parameters()) for n in range(1, 32)}
    channels = max(n for n, parameters in sizes.items() if parameters < limit)
    found = run_json("design", "--max-params", limit)
    return found["model_arg"], {
        "compact": (found["model"], found["model_arg"][0]),
        "ResNet-14": (f"{control.__file__}:Control", f"channels={channels}"),
    }


def measure(folder, runs, threads):
    """Yield a point for each network, limit and number of epochs."""
    for limit in LIMITS:
        width, networks = find_networks(limit)
        for name, epochs, seeds in SERIES:
            model, argument = networks[name]
            recipe = {"recipe": "best", "model": "compact", "model_arg": width, "epochs": epochs}
            network = ["--model", model, "--model-arg", argument]
            flags = [*network, "--recipe", "best", "--cutout", resolve_settings(recipe).cutout]
            flags += ["--dataset", "folder", "--data-dir", folder, "--normalization", "cifar10"]
            flags += ["--epochs", epochs, "--threads", threads, "--no-report"]
            accuracies = []
            for seed in seeds:
                where = ["--name", f"{name}-{limit}-{epochs}-{seed}", "--output-dir", runs]
                result = run_json("train", *flags, "--seed", seed, *where, "--resume", "auto")
                accuracies.append(result["eval"]["accuracy"])
            totals = run_json("summary", *network, "--no-budget")["totals"]
            sizes = {"parameters": totals["parameters"], "mult_adds": totals["mult_adds"]}
            point = {"network": name, "limit": limit, "argument": argument, "epochs": epochs}
            yield {**point, **sizes, "accuracies": accuracies}


def draw(points, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, color in (("compact", "tab:blue"), ("ResNet-14", "tab:orange")):
        for epochs, style in ((30, "-"), (10, "--")):
            curve = [p for p in points if (p["network"], p["epochs"]) == (name, epochs)]
            means = [100 * statistics.mean(point["accuracies"]) for point in curve]
            parameters = [point["parameters"] for point in curve]
            label = f"{name}, {epochs} epochs" if curve else None
            axes.plot(parameters, means, style, color=color, marker="o", markersize=4, label=label)
    axes.set(xscale="log", xlabel="parameters", ylabel="test accuracy, %")
    axes.set_xticks(LIMITS, [f"{limit:,}" for limit in LIMITS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--plot", default="size_curve.png")
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    points = []
    for point in measure(arguments.folder, arguments.runs, arguments.threads):
        points.append(point)
        print(json.dumps(point), file=sys.stderr, flush=True)
        draw(points, arguments.plot)
    print(json.dumps(points, indent=2))


if __name__ == "__main__":
    main()
