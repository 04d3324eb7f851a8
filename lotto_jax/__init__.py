"""Winning lottery tickets in deep generative models, in JAX."""
