"""The model card of a trained image classifier, written from its training log."""

from __future__ import annotations

from typing import Any

from qbench.tasks import zoo
from qbench.tasks.training_curve import curve_table


def render_card(result: dict[str, Any]) -> str:
    """Return the card as Markdown.

    Parameters
    ----------
    result : dict
        The content of ``training.json``, as `qbench.tasks.pretrain.pretrain` returns it.
    """
    spec, recipe, curve = zoo.classifier(result["name"]), result["recipe"], result["curve"]
    last = curve[-1]
    columns = {
        "train loss": lambda row: f"{row['train_loss']:.3f}",
        "held-out loss": lambda row: f"{row['held_out_loss']:.3f}",
        "held-out accuracy %": lambda row: f"{100 * row['held_out_accuracy']:.1f}",
    }
    mirrored = " and mirrored half of the time" if spec.images.mirrored else ""
    return "\n".join(
        [
            f"# {result['name']}, training seed {result['seed']}",
            "",
            f"{spec.about}. Made to study quantization: it has no other use.",
            "",
            f"- parameters: {result['parameters']:,}",
            f"- training images seen: {result['images']:,}, each shifted by up to {recipe['shift']} pixels{mirrored}",
            f"- held out at the end: {last['held_out_loss']:.4f} nats an image, "
            f"{100 * last['held_out_accuracy']:.2f} % right",
            f"- schedule: {recipe['warmup_steps']} steps of warm-up, constant rate {recipe['learning_rate']:g},",
            f"  linear decay over the last {recipe['decay_share']:.0%} of {recipe['steps']} steps "
            f"of {recipe['batch_size']} images; AdamW, weight decay {recipe['weight_decay']:g}",
            "- checkpoints: `stable.safetensors` (where the decay begins), `decayed.safetensors` (the end);",
            "  parameters in bfloat16, running statistics of batch norm in float32, and these are the reference",
            f"- made with torch {result['torch']} on {result['device']}, compiled: {str(result['compiled']).lower()}",
            f"- data: {(type(spec.images).__doc__ or '').splitlines()[0]}",
            "- licence: Apache-2.0 for the weights; they are derived from these images",
            "",
            curve_table(curve, columns),
            "",
            f"Made again by `qbench pretrain {result['name']} --seed {result['seed']}`; the whole curve is in "
            "`training.json`.",
            "",
        ]
    )
