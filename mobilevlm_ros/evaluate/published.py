"""Scores that others published, to stand beside one's own in a report.

Sources: the result tables of the MobileVLM repository and papers (arXiv 2312.16886, 2402.03766) for the general benchmarks, and
ColonINST's benchmark (ai4colonoscopy/IntelliScope) for MobileVLM-1.7B fine-tuned there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Published scores of one benchmark: what the number is, and the number by model."""

    measure: str
    scores: dict[str, float]


def _family(v1_small: float, v1_large: float, v2_small: float, v2_large: float, v2_largest: float) -> dict[str, float]:
    return {
        "MobileVLM-1.7B": v1_small,
        "MobileVLM-3B": v1_large,
        "MobileVLM_V2-1.7B": v2_small,
        "MobileVLM_V2-3B": v2_large,
        "MobileVLM_V2-7B": v2_largest,
    }


PUBLISHED: dict[str, tuple[Published, ...]] = {
    "gqa": (Published("accuracy on testdev balanced, percent", _family(56.1, 59.0, 59.3, 61.1, 62.6)),),
    "scienceqa": (Published("accuracy on test, percent", _family(57.3, 61.2, 66.7, 70.0, 74.8)),),
    "textvqa": (Published("accuracy on val with OCR tokens, percent", _family(41.5, 47.5, 52.1, 57.5, 62.3)),),
    "pope": (Published("mean F1 of the three categories, percent", _family(84.5, 84.9, 84.3, 84.7, 85.3)),),
    "mme": (Published("perception score", _family(1196.2, 1288.9, 1302.8, 1440.5, 1560.7)),),
    "coloninst": (
        Published("CLS accuracy, seen, percent", {"MobileVLM-1.7B with LoRA": 93.64, "MobileVLM-1.7B without LoRA": 93.02}),
        Published("CLS accuracy, unseen, percent", {"MobileVLM-1.7B with LoRA": 80.44, "MobileVLM-1.7B without LoRA": 78.75}),
        Published("REG accuracy, seen, percent", {"MobileVLM-1.7B with LoRA": 97.87, "MobileVLM-1.7B without LoRA": 97.78}),
        Published("REG accuracy, unseen, percent", {"MobileVLM-1.7B with LoRA": 78.03, "MobileVLM-1.7B without LoRA": 73.14}),
        Published("REC mean IoU, seen, percent", {"MobileVLM-1.7B with LoRA": 51.36, "MobileVLM-1.7B without LoRA": 47.30}),
        Published("REC mean IoU, unseen, percent", {"MobileVLM-1.7B with LoRA": 34.80, "MobileVLM-1.7B without LoRA": 31.46}),
    ),
}
