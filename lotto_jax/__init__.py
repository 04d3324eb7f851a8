"""Winning lottery tickets in deep generative models: `lotto_jax.pruning` for any JAX program, `lotto-jax` for runs."""

from importlib.metadata import version

__version__ = version("lotto_jax")
