"""The loop of train.py in PyTorch: linear autoencoder, Adam, global unstructured masks; prints seconds a step."""

import json
import statistics
import sys
import time

import torch
from torch.nn.utils import prune

BATCH, PIXELS, LATENT, STEPS = (int(x) for x in sys.argv[1:5])
torch.manual_seed(0)
images = torch.randint(0, 256, (60_000, PIXELS), dtype=torch.uint8)
encoder, decoder = torch.nn.Linear(PIXELS, LATENT), torch.nn.Linear(LATENT, PIXELS)
layers = [(encoder, "weight"), (decoder, "weight")]
prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=0.5)
optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)


def train(steps: int) -> None:
    """`steps` masked updates."""
    order = torch.randperm(len(images))
    for i in range(steps):
        x = images[order[i * BATCH : (i + 1) * BATCH]].float() / 255
        loss = torch.mean((decoder(torch.relu(encoder(x))) - x) ** 2)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


train(10)
times = []
for _ in range(7):
    start = time.perf_counter()
    train(STEPS)
    times.append((time.perf_counter() - start) / STEPS)
print(json.dumps({"seconds": statistics.median(times), "threads": torch.get_num_threads()}))
