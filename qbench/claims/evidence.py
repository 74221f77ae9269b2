"""Which records a claim may be judged by, and why not the others.

A verdict on a method must come from that method. A plugin that calls its fine-tuning QAT, or its training on labels
PTQ, would decide claims that it has nothing to do with: so the arms of a claim are qbench's own classes, whose sources
stand in the record's identity, and the cost they report has to fit what they are.
"""

from __future__ import annotations

import re
from typing import Any

from qbench.registry import METHODS, PROBES
from qbench.store.documents import adds_up
from qbench.store.record import Record

_TRAINED = frozenset({"ste_qat", "lsq", "latent_grad", "noise_grad", "random_grad", "ft_then_ptq"})
_SEES_NOTHING = frozenset({"rtn"})


def options_of(record: Record) -> dict[str, Any]:
    """Return the options of a record's method or probe with all defaults; empty where the record tells none."""
    described = record.key.get("method") or record.key.get("probe") or {}
    found: dict[str, Any] = described.get("options", {})
    return found


def flaw(record: Record) -> str | None:
    """Return why a record is no evidence for what its name says; None where it is."""
    if record.status != "ok":
        return f"{record.status}: {record.reason}" if record.reason else record.status
    if record.fallbacks:
        return f"{len(record.fallbacks)} layers fell back"
    if not adds_up(record):
        return "its loss is not that of its documents"
    described = record.key.get("method") or record.key.get("probe")
    if described is None:
        return None  # full precision
    registry = METHODS if "method" in record.key else PROBES
    name, sources = described.get("options", {}).get("name"), described.get("sources", {})
    if name is None:
        return "the record does not tell its options"
    foreign = sorted(module for module in sources if not module.startswith("qbench."))
    home = registry.home(name) if name in registry.names() else None
    if foreign or home not in sources:
        return f"not qbench's own {name}" + (f" but of {', '.join(foreign)}" if foreign else "")
    return _cost_flaw(record, name) if "method" in record.key else None


def _cost_flaw(record: Record, name: str) -> str | None:
    cost = record.cost
    if name in _TRAINED:
        if options_of(record).get("learning_rate") == 0:
            return None
        return None if cost.train_tokens > 0 and cost.train_steps > 0 else f"{name} that was not trained"
    if cost.train_tokens > 0:
        return f"{name} that was trained on {cost.train_tokens} tokens"
    if name in _SEES_NOTHING and cost.train_steps:
        return f"{name} that made {cost.train_steps} optimizer steps"
    allowed = calibration_size(record)
    if allowed is not None and cost.calibration_tokens > allowed:
        return f"{name} that saw {cost.calibration_tokens} tokens, {allowed} are for calibration"
    return None


def calibration_size(record: Record) -> int | None:
    """Return the tokens (or images) of the calibration set, as its facts tell them; None where they do not."""
    text = str(record.facts.get("calibration", ""))
    windows = re.match(r"(\d+) windows of (\d+) tokens", text)
    if windows:
        return int(windows[1]) * int(windows[2])
    images = re.match(r"(\d+) (images|inputs)", text)
    return int(images[1]) if images else None
