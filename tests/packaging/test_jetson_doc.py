"""docs/jetson.md says what there is: commands, arguments, parameters, error messages, and what the traffic model predicts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mobilevlm_ros.bench.roofline import Orin, predict, shape_of
from mobilevlm_ros.bench.synthetic import Skeleton
from mobilevlm_ros.cli import main
from mobilevlm_ros.doctor.jetson_subjects import Shipped

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "jetson.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"\bmobilevlm (?!-)([a-z]+)([^`#>\n]*)", TEXT)


@pytest.mark.parametrize("command", sorted({name for name, _ in COMMANDS if name not in ("ros", "node")}))
def test_its_commands_have_the_options_that_it_names(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    named = {word for name, rest in COMMANDS if name == command for word in re.findall(r"--[a-z-]+", rest)}
    assert [option for option in named if option not in told] == []


def test_its_launch_arguments_and_parameters_exist() -> None:
    launch = (ROOT / "launch" / "mobilevlm.launch.py").read_text(encoding="utf-8")
    arguments = set(re.findall(r"\b([a-z_]+):=", TEXT))
    assert [name for name in arguments if f'    ("{name}", "' not in launch] == []
    parameters = (ROOT / "config" / "mobilevlm.yaml").read_text(encoding="utf-8")
    for name in ("backend", "rows", "context_length", "prefix_cache_mb", "engine_cache"):
        assert name in TEXT
        assert f"\n    {name}: " in parameters


def test_the_sizes_to_build_are_the_presets() -> None:
    preset = (ROOT / "config" / "presets" / "jetson.yaml").read_text(encoding="utf-8")
    (sizes,) = re.findall(r"mobilevlm build \S+ --rows (\d+) --context-length (\d+)", TEXT)
    assert f"    rows: {sizes[0]}\n    context_length: {sizes[1]}\n" in preset


def test_the_messages_that_it_explains_are_ones_that_the_program_has() -> None:
    table = TEXT.split("| What you see |")[1].split("\n\n")[0]
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mobilevlm_ros" / "runtime").rglob("*.py"))
    parts = [
        part
        for row in table.splitlines()[2:]
        for said in re.findall(r"`([^`]+)`", row.split("|")[1])
        for part in said.split(" ... ")
    ]
    parts = [part for part in parts if part != "backend: cpu" and "decoder.trt.onnx" not in part and part != "TensorRT"]
    assert len(parts) > 6
    assert [part for part in parts if part.removesuffix(" 9") not in sources] == []


@pytest.mark.parametrize("orin", [Orin.AGX_64, Orin.AGX_32, Orin.NX_16, Orin.NANO_8])
def test_its_predictions_are_the_traffic_models(orin: Orin) -> None:
    found = predict(shape_of(Skeleton.load(Shipped.FULL_INT4.path).manifest, 4), orin.value)
    whole = (found.encode_ms, found.prefill_ms, found.decode_tokens_per_s)
    cells = [*(f"{span.low:.0f} to {span.high:.0f}" for span in whole)]
    cells.append(f"{found.answer_ms.low / 1e3:.2f} to {found.answer_ms.high / 1e3:.2f}")
    assert f"| {orin.value.name} | {' | '.join(cells)} |" in TEXT


def test_its_files_are_there() -> None:
    for name in re.findall(r"\b(?:docker|config/presets|requirements|tools)/[\w./]+\w", TEXT):
        assert (ROOT / name).exists(), name
