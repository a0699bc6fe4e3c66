"""How long the receptive field of densenet121 at 224 takes, after imports. Prints JSON.

Run it as `python tests/benchmarks/receptive_field_speed.py`; the limit is 2 seconds.
"""

import json
import statistics
import sys
import time

import torchvision

from cifar_cnn import receptive_field

RUNS = 5


def main() -> None:
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        result = receptive_field("torchvision.models:densenet121", (224, 224))
        seconds.append(time.perf_counter() - start)
    document = {
        "model": result.model,
        "torchvision": torchvision.__version__,
        "layers": len(result.layers),
        "final": list(result.final.receptive_field),
        "first_seconds": round(seconds[0], 3),
        "median_seconds": round(statistics.median(seconds), 3),
    }
    sys.stdout.write(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
