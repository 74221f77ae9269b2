"""The model card of a trained zoo model, written from its training log."""

from __future__ import annotations

from typing import Any

from qbench.tasks import assets, corpus, zoo
from qbench.tasks.tokenizer import VOCAB_SIZE
from qbench.tasks.training_curve import curve_table


def render_card(result: dict[str, Any]) -> str:
    """Return the card as Markdown.

    Parameters
    ----------
    result : dict
        The content of ``training.json``, as `qbench.tasks.pretrain.pretrain` returns it.
    """
    spec, recipe, curve = zoo.language_model(result["name"]), result["recipe"], result["curve"]
    last = curve[-1]
    columns = {
        "train loss": lambda row: f"{row['train_loss']:.3f}",
        "held-out loss": lambda row: f"{row['held_out_loss']:.3f}",
        "bits a byte": lambda row: f"{row['held_out_bits_per_byte']:.3f}",
    }
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
            curve_table(curve, columns),
            "",
            f"Made again by `{again}`; the whole curve is in `training.json`.",
            "",
        ]
    )
