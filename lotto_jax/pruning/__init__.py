"""Pruning as pure functions of pytrees; imports only JAX and NumPy (and jaxtyping for annotations)."""
