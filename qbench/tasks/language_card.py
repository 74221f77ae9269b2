"""The model card of a trained zoo model, written from its training log."""

from __future__ import annotations

from typing import Any

from tabulate import tabulate

from qbench.tasks import assets, corpus, zoo
from qbench.tasks.tokenizer import VOCAB_SIZE

_CURVE_ROWS = 8


def render_card(result: dict[str, Any]) -> str:
    """Return the card as Markdown.

    Parameters
    ----------
    result : dict
        The content of ``training.json``, as `qbench.tasks.pretrain.pretrain` returns it.
    """
    spec, recipe, curve = zoo.language_model(result["name"]), result["recipe"], result["curve"]
    last = curve[-1]
    # The first rows of evenly spaced ones, and always the last.
    shown = [curve[index * (len(curve) - 1) // (_CURVE_ROWS - 1)] for index in range(_CURVE_ROWS)]
    rows = [
        (
            f"{row['step']:.0f}",
            f"{row['train_loss']:.3f}",
            f"{row['held_out_loss']:.3f}",
            f"{row['held_out_bits_per_byte']:.3f}",
        )
        for row in shown
    ]
    sources = [f"- {name}: {assets.asset(name).about} ({assets.asset(name).licence})" for name in corpus.SOURCES]
    again = f"qbench pretrain {result['name']} --seed {result['seed']}"
    return "\n".join(
        [
            f"# {result['name']}, training seed {result['seed']}",
            "",
            f"{spec.about}. A byte-level BPE vocabulary of {VOCAB_SIZE} tokens, trained on the same train split; the",
            "head is tied to the embedding. Made to study quantization: it has no other use.",
            "",
            f"- parameters: {result['parameters']:,}",
            f"- training tokens: {result['tokens']:,} ({result['tokens'] / result['parameters']:.1f} a parameter)",
            f"- held out at the end: {last['held_out_loss']:.4f} nats a token, "
            f"{last['held_out_bits_per_byte']:.4f} bits a byte",
            f"- schedule: {recipe['warmup_steps']} steps of warm-up, constant rate {recipe['learning_rate']:g},",
            f"  linear decay over the last {recipe['decay_share']:.0%} of {recipe['steps']} steps "
            f"of {recipe['batch_size']} windows of {recipe['sequence_length']} tokens",
            "- checkpoints: `stable.safetensors` (where the decay begins), `decayed.safetensors` (the end);",
            "  bfloat16, and the rounded values are the reference",
            f"- made with torch {result['torch']} on {result['device']}, compiled: {str(result['compiled']).lower()}, "
            f"matrix products in {zoo.Recipe(**recipe).precision}",
            "- licence: Apache-2.0 for the weights; they are derived from the texts below",
            "",
            "Text, split by document into train, calibration and evaluation:",
            "",
            *sources,
            "",
            tabulate(rows, headers=["step", "train loss", "held-out loss", "bits a byte"], tablefmt="github"),
            "",
            f"Made again by `{again}`; the whole curve is in `training.json`.",
            "",
        ]
    )
