"""Seconds that the receptive field of densenet121 at 224 pixels takes, after imports: at most 2.

Prints JSON:

    python tests/benchmarks/receptive_field_speed.py
"""

import json
import statistics
import time

from cifar_cnn import receptive_field


def main() -> None:
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        receptive_field("torchvision.models:densenet121", (224, 224))
        seconds.append(round(time.perf_counter() - start, 3))
    print(json.dumps({"first": seconds[0], "median": statistics.median(seconds)}))


if __name__ == "__main__":
    main()
