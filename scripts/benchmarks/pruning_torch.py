"""Times torch.nn.utils.prune.global_unstructured on layers of the sizes given; prints {"seconds": median}."""

import json
import statistics
import sys
import time

import torch
from torch.nn.utils import prune

times = []
for _ in range(7):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(1, int(size), bias=False) for size in sys.argv[1:]]
    start = time.perf_counter()
    prune.global_unstructured([(layer, "weight") for layer in layers], pruning_method=prune.L1Unstructured, amount=0.2)
    times.append(time.perf_counter() - start)
print(json.dumps({"seconds": statistics.median(times[1:])}))
