"""The exported graphs, driven by ONNX Runtime alone, give what the official code gave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.export.convert import ConvertOptions, convert
from mobilevlm_ros.runtime.manifest import Precision
from tests.export.graph_runner import GraphRunner
from tests.parity import CASES, IMAGE_TOKEN, PRECISIONS, QUESTION, Case, letterboxed, prompt_ids, relative

EXACT = [precision for precision, allowed in PRECISIONS.items() if allowed.same_tokens]
TOLERANCE = 1e-5


@pytest.mark.parametrize("precision", EXACT, ids=lambda precision: precision.value)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_features_logits_and_tokens_are_those_of_the_official_code(case: Case, precision: Precision, tmp_path: Path) -> None:
    convert(case.checkpoint, tmp_path / "package", ConvertOptions(precision=precision, adapter=case.adapter))
    golden, graphs = case.golden, GraphRunner(tmp_path / "package")
    ids = prompt_ids(QUESTION)
    place = ids.index(IMAGE_TOKEN)
    features = graphs.encode(letterboxed(336))
    prompt = np.concatenate([graphs.embed(ids[:place]), features[0], graphs.embed(ids[place + 1 :])])
    logits = graphs.prefill(prompt, list(range(len(prompt) - 8, len(prompt))))
    assert relative(features, golden["features"]) < TOLERANCE
    assert relative(logits[-1], golden["last_logits"]) < TOLERANCE
    if "all_last8" in golden:
        assert relative(logits, golden["all_last8"]) < TOLERANCE
    assert graphs.greedy(logits[-1], len(golden["tokens"])) == golden["tokens"].tolist()
