"""The PyTorch side of convolutions.py: median seconds of forward, input gradient and kernel gradient of one layer."""

import json
import statistics
import sys
import time

import torch

batch, size, inputs, outputs, kernel, stride, repeats = map(int, sys.argv[1:])
x = torch.randn(batch, inputs, size, size)
w = torch.randn(outputs, inputs, kernel, kernel)
padding = (kernel - stride + 1) // 2
y = torch.nn.functional.conv2d(x, w, stride=stride, padding=padding)
g = torch.ones_like(y)


def derivative(of_x: bool) -> None:
    """With respect to the input, or to the kernel."""
    torch.ops.aten.convolution_backward(
        g, x, w, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [of_x, not of_x, False]
    )


calls = {
    "forward": lambda: torch.nn.functional.conv2d(x, w, stride=stride, padding=padding),
    "input gradient": lambda: derivative(True),
    "kernel gradient": lambda: derivative(False),
}
times = {}
for name, call in calls.items():
    call()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    times[name] = statistics.median(taken)
print(json.dumps(times))
