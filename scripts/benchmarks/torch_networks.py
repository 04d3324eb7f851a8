"""The networks of Table 1 and their train steps in PyTorch, written the customary way, with the Flax modules'
names.

`python torch_networks.py NETWORK BATCH REPEATS` prints the median seconds of a train step as JSON. The parity
tests load the JAX networks' params into these modules and compare losses, gradients and updates.
"""

import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

warnings.filterwarnings("ignore", message=".*spectral_norm.*")


def flat(x: Tensor) -> Tensor:
    """Maps as vectors, in the order of NHWC."""
    return x.permute(0, 2, 3, 1).flatten(1)


def to_map(x: Tensor, size: int) -> Tensor:
    """Vectors in the order of NHWC as maps of `size`."""
    return x.unflatten(1, (size, size, -1)).permute(0, 3, 1, 2).contiguous()


def sn(layer: nn.Module, norm: bool = True) -> nn.Module:
    """The layer, spectrally normalized."""
    return torch.nn.utils.spectral_norm(layer) if norm else layer


class Generator(nn.ModuleDict):
    """`dcgan.Generator` at 32x32."""

    def __init__(self, width: int = 64, latent: int = 128):
        super().__init__()
        self["dense"] = nn.Linear(latent, 128 * width)
        self["norm_4"] = nn.BatchNorm2d(8 * width)
        for size in (8, 16, 32):
            out = 32 * width // size
            self[f"conv_{size}"] = nn.ConvTranspose2d(2 * out, out, 4, 2, 1, bias=False)
            self[f"norm_{size}"] = nn.BatchNorm2d(out)
        self["image"] = nn.Conv2d(width, 3, 3, 1, 1)

    def logits(self, z: Tensor) -> Tensor:
        """Images before the tanh."""
        x = F.relu(self["norm_4"](to_map(self["dense"](z), 4)))
        for size in (8, 16, 32):
            x = F.relu(self[f"norm_{size}"](self[f"conv_{size}"](x)))
        return self["image"](x)

    def forward(self, z: Tensor) -> Tensor:
        """Images in [-1, 1]."""
        return torch.tanh(self.logits(z))


class Discriminator(nn.ModuleDict):
    """`dcgan.Discriminator` at 32x32."""

    def __init__(self, width: int = 64, batch_norm: bool = True):
        super().__init__()
        inputs = 3
        for i, size in enumerate((16, 8, 4, 2)):
            features = 16 * width // size
            norm = batch_norm and i > 0
            self[f"conv_{size}"] = nn.Conv2d(inputs, features, 4, 2, 1, bias=not norm)
            if norm:
                self[f"norm_{size}"] = nn.BatchNorm2d(features)
            inputs = features
        self["dense"] = nn.Linear(32 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        for size in (16, 8, 4, 2):
            x = self[f"conv_{size}"](x)
            if f"norm_{size}" in self:
                x = self[f"norm_{size}"](x)
            x = F.leaky_relu(x, 0.2)
        return self["dense"](flat(x))[:, 0]


class SNDiscriminator(nn.ModuleDict):
    """`sngan.Discriminator` at 32x32."""

    def __init__(self, width: int = 64):
        super().__init__()
        inputs = 3
        for size in (32, 16, 8):
            features = 32 * width // size
            self[f"conv_{size}"] = sn(nn.Conv2d(inputs, features, 3, 1, 1))
            self[f"down_{size}"] = sn(nn.Conv2d(features, features, 4, 2, 1))
            inputs = features
        self["conv_4"] = sn(nn.Conv2d(inputs, 8 * width, 3, 1, 1))
        self["dense"] = sn(nn.Linear(128 * width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        for size in (32, 16, 8):
            x = F.leaky_relu(self[f"conv_{size}"](x), 0.1)
            x = F.leaky_relu(self[f"down_{size}"](x), 0.1)
        return self["dense"](flat(F.leaky_relu(self["conv_4"](x), 0.1)))[:, 0]


class UpBlock(nn.ModuleDict):
    """A block of `resnet_gan.Generator`."""

    def __init__(self, width: int):
        super().__init__()
        for i in (0, 1):
            self[f"norm_{i}"] = nn.BatchNorm2d(width)
            self[f"conv_{i}"] = nn.Conv2d(width, width, 3, 1, 1)
        self["shortcut"] = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of twice the size."""
        y = self["conv_0"](F.interpolate(F.relu(self["norm_0"](x)), scale_factor=2))
        y = self["conv_1"](F.relu(self["norm_1"](y)))
        return y + F.interpolate(self["shortcut"](x), scale_factor=2)


class ResNetGenerator(nn.ModuleDict):
    """`resnet_gan.Generator` at 32x32."""

    def __init__(self, width: int = 128, latent: int = 128):
        super().__init__()
        self["dense"] = nn.Linear(latent, 16 * width)
        for i in range(3):
            self[f"block_{i}"] = UpBlock(width)
        self["norm"] = nn.BatchNorm2d(width)
        self["image"] = nn.Conv2d(width, 3, 3, 1, 1)

    def logits(self, z: Tensor) -> Tensor:
        """Images before the tanh."""
        x = to_map(self["dense"](z), 4)
        for i in range(3):
            x = self[f"block_{i}"](x)
        return self["image"](F.relu(self["norm"](x)))

    def forward(self, z: Tensor) -> Tensor:
        """Images in [-1, 1]."""
        return torch.tanh(self.logits(z))


class Block(nn.ModuleDict):
    """A block of `resnet_gan.Body`."""

    def __init__(self, inputs: int, width: int, down: bool, first: bool):
        super().__init__()
        self["conv_0"] = sn(nn.Conv2d(inputs, width, 3, 1, 1))
        self["conv_1"] = sn(nn.Conv2d(width, width, 3, 1, 1))
        if down:
            self["shortcut"] = sn(nn.Conv2d(inputs, width, 1))
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        """Maps of half the size if the block has a shortcut."""
        y = self["conv_1"](F.relu(self["conv_0"](x if self.first else F.relu(x))))
        return F.avg_pool2d(y, 2) + self["shortcut"](F.avg_pool2d(x, 2)) if "shortcut" in self else x + y


class Body(nn.ModuleDict):
    """`resnet_gan.Body` at 32x32."""

    def __init__(self, width: int = 128):
        super().__init__()
        for i in range(4):
            self[f"block_{i}"] = Block(width if i else 3, width, i < 2, i == 0)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of 8x8."""
        for i in range(4):
            x = self[f"block_{i}"](x)
        return F.relu(x)


class ResNetDiscriminator(nn.ModuleDict):
    """`resnet_gan.Discriminator` at 32x32."""

    def __init__(self, width: int = 128):
        super().__init__()
        self["body"] = Body(width)
        self["dense"] = sn(nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self["dense"](self["body"](x).sum((2, 3)))[:, 0]


class Trunk(nn.ModuleDict):
    """`autoencoder.ConvTrunk` at 32x32."""

    def __init__(self, width: int):
        super().__init__()
        inputs = 3
        for size in (16, 8, 4):
            self[f"conv_{size}"] = nn.Conv2d(inputs, 16 * width // size, 4, 2, 1, bias=False)
            inputs = 16 * width // size
            self[f"norm_{size}"] = nn.BatchNorm2d(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of 4x4."""
        for size in (16, 8, 4):
            x = F.relu(self[f"norm_{size}"](self[f"conv_{size}"](x)))
        return x


class Autoencoder(nn.ModuleDict):
    """`autoencoder.ConvAutoencoder` at 32x32."""

    def __init__(self, width: int = 64, latent: int = 200):
        super().__init__()
        features = 4 * width
        self["encoder"] = nn.ModuleDict({"trunk": Trunk(width), "dense": nn.Linear(16 * features, latent)})
        self["decoder"] = nn.ModuleDict(
            {
                "dense": nn.Linear(latent, 16 * features),
                "norm_4": nn.BatchNorm2d(features),
                "conv_8": nn.ConvTranspose2d(features, 2 * width, 4, 2, 1, bias=False),
                "norm_8": nn.BatchNorm2d(2 * width),
                "conv_16": nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
                "norm_16": nn.BatchNorm2d(width),
                "image": nn.ConvTranspose2d(width, 3, 4, 2, 1),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions."""
        encoder: Any = self["encoder"]
        decoder: Any = self["decoder"]
        x = to_map(decoder["dense"](encoder["dense"](flat(encoder["trunk"](x)))), 4)
        x = F.relu(decoder["norm_4"](x))
        for size in (8, 16):
            x = F.relu(decoder[f"norm_{size}"](decoder[f"conv_{size}"](x)))
        return decoder["image"](x)


class Encoder(nn.ModuleDict):
    """`vae.ConvEncoder`, or `vae.ResNetEncoder`, at 32x32."""

    def __init__(self, width: int, latent: int, resnet: bool):
        super().__init__()
        self["body" if resnet else "trunk"] = Body(width) if resnet else Trunk(width)
        for head in ("mean", "log_variance"):
            self[head] = nn.Linear(16 * width * (1 if resnet else 4), latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance."""
        x = flat(self["trunk"](x) if "trunk" in self else F.avg_pool2d(self["body"](x), 2))
        return self["mean"](x), self["log_variance"](x)


class VAE(nn.ModuleDict):
    """`vae.conv_vae` or `vae.resnet_vae`."""

    def __init__(self, width: int | None = None, latent: int = 128, resnet: bool = False):
        super().__init__()
        width = width or (128 if resnet else 64)
        self["encoder"] = Encoder(width, latent, resnet)
        self["decoder"] = ResNetGenerator(width, latent) if resnet else Generator(width, latent)

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the reconstruction, mean and log variance."""
        mean, log_variance = self["encoder"](x)
        decoder: Any = self["decoder"]
        return decoder.logits(mean + torch.exp(0.5 * log_variance) * noise), mean, log_variance


def embed_time(time: Tensor, features: int) -> Tensor:
    """`time_embedding.sinusoidal`."""
    half = features // 2
    angle = 1000 * time[:, None] * torch.exp(-math.log(10_000) * torch.arange(half) / max(half - 1, 1))
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """As many groups as divide the channels."""
    return nn.GroupNorm(math.gcd(groups, channels), channels, eps=1e-6)


class ResBlock(nn.ModuleDict):
    """A residual block of `unet.UNet`, without dropout."""

    def __init__(self, inputs: int, features: int, embedded: int, groups: int):
        super().__init__()
        self["norm_0"] = group_norm(inputs, groups)
        self["conv_0"] = nn.Conv2d(inputs, features, 3, 1, 1)
        self["time"] = nn.Linear(embedded, features)
        self["norm_1"] = group_norm(features, groups)
        self["conv_1"] = nn.Conv2d(features, features, 3, 1, 1)
        if inputs != features:
            self["shortcut"] = nn.Linear(inputs, features)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Maps of the same size."""
        y = self["conv_0"](F.silu(self["norm_0"](x))) + self["time"](F.silu(embedded))[:, :, None, None]
        y = self["conv_1"](F.silu(self["norm_1"](y)))
        if "shortcut" in self:
            x = self["shortcut"](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + y


class Attention(nn.ModuleDict):
    """Attention of one head of `unet.UNet`."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self["norm"] = group_norm(channels, groups)
        for name in ("query", "key", "value", "output"):
            self[name] = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same size."""
        y = self["norm"](x).flatten(2).transpose(1, 2)
        query, key, value = (self[name](y) for name in ("query", "key", "value"))
        y = self["output"](F.scaled_dot_product_attention(query, key, value))
        return x + y.transpose(1, 2).unflatten(2, x.shape[2:])


class UNet(nn.ModuleDict):
    """`unet.UNet` without dropout."""

    def __init__(
        self,
        width: int = 128,
        multipliers: tuple[int, ...] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: tuple[int, ...] = (16,),
        groups: int = 32,
        size: int = 32,
        channels: int = 3,
    ):
        super().__init__()
        self.width, self.stages, self.blocks = width, len(multipliers), blocks
        self["time_0"], self["time_1"] = nn.Linear(width, 4 * width), nn.Linear(4 * width, 4 * width)
        self["image"] = nn.Conv2d(channels, width, 3, 1, 1)
        count, kept = width, [width]

        def block(name: str, inputs: int, features: int, size: int) -> None:
            self[name] = ResBlock(inputs, features, 4 * width, groups)
            if size in attention:
                self[f"{name}_attention"] = Attention(features, groups)

        for stage, multiplier in enumerate(multipliers):
            for i in range(blocks):
                block(f"down_{stage}_{i}", count, multiplier * width, size // 2**stage)
                count = multiplier * width
                kept.append(count)
            if stage < self.stages - 1:
                self[f"down_{stage}"] = nn.Conv2d(count, count, 3, 2)
                kept.append(count)
        for i in range(2):
            self[f"middle_{i}"] = ResBlock(count, count, 4 * width, groups)
        self["middle_attention"] = Attention(count, groups)
        for stage, multiplier in reversed(list(enumerate(multipliers))):
            for i in range(blocks + 1):
                block(f"up_{stage}_{i}", count + kept.pop(), multiplier * width, size // 2**stage)
                count = multiplier * width
            if stage:
                self[f"up_{stage}"] = nn.Conv2d(count, count, 3, 1, 1)
        self["norm"], self["output"] = group_norm(count, groups), nn.Conv2d(count, channels, 3, 1, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """The network's output at times in [0, 1]."""
        embedded = self["time_1"](F.silu(self["time_0"](embed_time(time, self.width))))

        def block(name: str, y: Tensor) -> Tensor:
            y = self[name](y, embedded)
            return self[f"{name}_attention"](y) if f"{name}_attention" in self else y

        y = self["image"](x)
        kept = [y]
        for stage in range(self.stages):
            for i in range(self.blocks):
                y = block(f"down_{stage}_{i}", y)
                kept.append(y)
            if stage < self.stages - 1:
                y = self[f"down_{stage}"](F.pad(y, (0, 1, 0, 1)))
                kept.append(y)
        y = self["middle_1"](self["middle_attention"](self["middle_0"](y, embedded)), embedded)
        for stage in reversed(range(self.stages)):
            for i in range(self.blocks + 1):
                y = block(f"up_{stage}_{i}", torch.cat([y, kept.pop()], dim=1))
            if stage:
                y = self[f"up_{stage}"](F.interpolate(y, scale_factor=2))
        return self["output"](F.silu(self["norm"](y)))


def diffusion_loss(
    model: nn.Module, image: Tensor, noise: Tensor, uniform: Tensor, kept: Tensor, prediction: str = "epsilon"
) -> Tensor:
    """The loss of `objectives.diffusion`; `kept` are the products of 1 - beta."""
    data, step = image / 127.5 - 1, (uniform * len(kept)).long()
    signal, amount = (x[step].float()[:, None, None, None] for x in (kept.sqrt(), (1 - kept).sqrt()))
    target = noise if prediction == "epsilon" else signal * noise - amount * data
    return F.mse_loss(model(signal * data + amount * noise, step / len(kept)), target)


def flow_loss(model: nn.Module, image: Tensor, noise: Tensor, uniform: Tensor, smallest: float = 0.0) -> Tensor:
    """The loss of `objectives.flow_matching`."""
    data, s = image / 127.5 - 1, uniform[:, None, None, None]
    x = (1 - s) * data + (smallest + (1 - smallest) * s) * noise
    return F.mse_loss(model(x, uniform), (1 - smallest) * noise - data)


def reconstruction_loss(model: nn.Module, image: Tensor, loss: str = "mse") -> Tensor:
    """The loss of `objectives.reconstruction` for uint8 images as floats."""
    unit = image / 255
    output = model(unit)
    return F.mse_loss(output, unit) if loss == "mse" else F.binary_cross_entropy_with_logits(output, unit)


def elbo(model: nn.Module, image: Tensor, noise: Tensor, beta: float = 1.0, loss: str = "mse") -> dict[str, Tensor]:
    """The metrics of `objectives.elbo`."""
    unit = image / 255
    logits, mean, log_variance = model(2 * unit - 1, noise)
    if loss == "mse":
        reconstruction = F.mse_loss(torch.tanh(logits), 2 * unit - 1, reduction="sum") / len(image)
    else:
        probabilities = F.binary_cross_entropy_with_logits(2 * logits, unit, reduction="sum")
        reconstruction = probabilities / len(image)
    kl = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp()) / len(image)
    return {"loss": reconstruction + beta * kl, "reconstruction_loss": reconstruction, "kl": kl}


def discriminator_loss(loss: str, real: Tensor, fake: Tensor) -> Tensor:
    """What the discriminator minimizes."""
    if loss == "bce":
        one, zero = torch.ones_like(real), torch.zeros_like(fake)
        bce = F.binary_cross_entropy_with_logits
        return bce(real, one) + bce(fake, zero)
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean() if loss == "hinge" else fake.mean() - real.mean()


def generator_loss(loss: str, fake: Tensor) -> Tensor:
    """What the generator minimizes."""
    if loss == "bce":
        return F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))
    return -fake.mean()


def power_vectors(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the vectors of spectral norm."""
    return {k: v.clone() for k, v in model.named_buffers() if k.endswith("_u")}


def restore(model: nn.Module, vectors: dict[str, Tensor]) -> None:
    """Put back what `power_vectors` copied."""
    for name, buffer in model.named_buffers():
        if name in vectors:
            buffer.copy_(vectors[name])


def gan_step(
    generator: nn.Module,
    discriminator: nn.Module,
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    image: Tensor,
    noises: Tensor,
    loss: str = "bce",
    weight_clip: float | None = None,
    penalty: float = 0.0,
    shares: Tensor | None = None,
) -> dict[str, Tensor]:
    """The train step of `objectives.adversarial`, with a critic step for each entry of `noises`."""
    signed = image / 127.5 - 1
    for i, (noise, real) in enumerate(zip(noises, signed.chunk(len(noises)), strict=True)):
        fake = generator(noise)
        optimizers[1].zero_grad()
        before = power_vectors(discriminator)
        real_logits = discriminator(real)
        restore(discriminator, before)
        discriminator_value = discriminator_loss(loss, real_logits, discriminator(fake.detach()))
        if penalty and shares is not None:
            share = shares[i]
            between = (share * real + (1 - share) * fake.detach()).requires_grad_()
            (slope,) = torch.autograd.grad(discriminator(between).sum(), between, create_graph=True)
            discriminator_value = discriminator_value + penalty * (slope.flatten(1).norm(dim=1) - 1).pow(2).mean()
        discriminator_value.backward()
        optimizers[1].step()
        if weight_clip is not None:
            with torch.no_grad():
                for p in discriminator.parameters():
                    p.clamp_(-weight_clip, weight_clip)
    after = power_vectors(discriminator)
    optimizers[0].zero_grad()
    generator_value = generator_loss(loss, discriminator(fake))
    # Gradients of the discriminator's params are not needed.
    params = list(generator.parameters())
    for p, grad in zip(params, torch.autograd.grad(generator_value, params), strict=True):
        p.grad = grad
    optimizers[0].step()
    restore(discriminator, after)
    return {"generator_loss": generator_value.detach(), "discriminator_loss": discriminator_value.detach()}


def train_step(name: str, batch: int) -> Callable[[], object]:
    """A call that makes one train step of the named network at the paper's width."""
    image = torch.randint(0, 256, (batch, 3, 32, 32)).float()
    if name == "unet":
        unet = UNet()
        adam, kept = torch.optim.Adam(unet.parameters(), 2e-4), torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)

        def unet_step() -> None:
            adam.zero_grad()
            diffusion_loss(unet, image, torch.randn_like(image), torch.rand(batch), kept).backward()
            adam.step()

        return unet_step
    if name == "conv_ae" or name.endswith("vae"):
        model = Autoencoder() if name == "conv_ae" else VAE(resnet=name == "resnet_vae")
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)

        def step() -> None:
            optimizer.zero_grad()
            if name == "conv_ae":
                loss = reconstruction_loss(model, image)
            else:
                loss = elbo(model, image, torch.randn(batch, 128))["loss"]
            loss.backward()
            optimizer.step()

        return step
    resnet = name == "resnet_dcgan"
    generator = ResNetGenerator() if resnet else Generator()
    discriminator: nn.Module = Discriminator()
    if name == "sngan" or resnet:
        discriminator = ResNetDiscriminator() if resnet else SNDiscriminator()
    critic_steps = 5 if name == "wgan" else 1
    image = torch.randint(0, 256, (batch * critic_steps, 3, 32, 32)).float()
    parts = (generator.parameters(), discriminator.parameters())
    optimizers = (
        tuple(torch.optim.RMSprop(p, 5e-5) for p in parts)
        if name == "wgan"
        else tuple(torch.optim.Adam(p, 2e-4, (0.5, 0.999)) for p in parts)
    )
    loss = {"dcgan": "bce", "wgan": "wasserstein"}.get(name, "hinge")

    return lambda: gan_step(
        generator,
        discriminator,
        (optimizers[0], optimizers[1]),
        image,
        torch.randn(critic_steps, batch, 128),
        loss,
        0.01 if name == "wgan" else None,
    )


if __name__ == "__main__":
    network, size, repeats = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    call = train_step(network, size)
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    print(json.dumps({"seconds": statistics.median(times), "threads": torch.get_num_threads()}))
