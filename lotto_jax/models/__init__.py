"""Networks as Flax Linen modules, without losses."""
