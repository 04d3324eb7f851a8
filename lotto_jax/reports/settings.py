"""How a run was set up: command, commit, device and date, and where its configuration differs from the default."""

import json
from typing import Any

from lotto_jax import config as configuration
from lotto_jax.reports.source import Source
from lotto_jax.reports.tables import Table
from lotto_jax.runs import origin

_RULE = "global_magnitude"  # the paper's


def facts(source: Source) -> list[tuple[str, str]]:
    """Command, commit, device and date, as far as config.json says them, configuration and versions."""
    begun = source.run.get("begun", {})
    found = [(field, begun.get(field, origin.UNKNOWN)) for field in origin.FIELDS]
    found += [(field, text) for field, text in begun.items() if field not in origin.FIELDS]
    found += [("run directory", str(source.path)), ("configuration", source.run.get("digest", origin.UNKNOWN))]
    versions = ", ".join(f"{name} {number}" for name, number in source.run.get("versions", {}).items())
    return [*found, ("versions", versions or origin.UNKNOWN)]


def differing(config: dict[str, Any]) -> Table:
    """Fields that are not at their default, with it. Fields of the open sections all are there."""
    default = configuration.flatten(configuration.as_dict(configuration.default()))
    open_ = tuple(f"{section}." for section in configuration.OPEN_SECTIONS)
    rows = []
    for key, value in configuration.flatten(config).items():
        if key.startswith(open_) or default.get(key) != value:
            before = "" if key not in default or default[key] == value else _shown(default[key])
            rows.append([key, _shown(value), before])
    return Table(["field", "value", "default"], sorted(rows), text=(0, 1, 2))


def _shown(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, str) else value or '""'


def scale(source: Source) -> str:
    """Size of a search in words: width, images, epochs, rounds and rewind step; and how many rounds are done."""
    config = source.config
    model, train, imp = config["model"], config["train"], config["imp"]
    images = config["dataset"]["train_examples"]
    parts = [f"width {model['width']}"] if "width" in model else []
    parts += [f"{images:,} images" if images else "all images", count(train["epochs"], "epoch")]
    arms = {r.arm for r in source.results}
    if "winning" in arms:
        done = max(r.round for r in source.results if r.arm == "winning")
        of = f"{done} of " if done < imp["rounds"] else ""
        rule = f" by {imp['rule']}" if imp.get("rule", _RULE) != _RULE else ""
        parts.append(f"{of}{count(imp['rounds'], 'round')} of {imp['fraction']:.0%}{rule}")
    if arms & {"winning", "one_shot"}:
        parts.append(f"rewind step {imp['rewind_step']}")
    return ", ".join(parts)


def count(number: int, thing: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number} {thing}" + ("s" if number != 1 else "")
