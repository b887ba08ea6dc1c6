"""`mobilevlm finetune` from the shell: what it prints, how it ends, and that Ctrl-C loses nothing."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mobilevlm_ros.cli import main
from mobilevlm_ros.finetune.run import Places
from tests.finetune.helpers import item, small_training, write_data

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--rank", "4", "--alpha", "8", "--batch", "4", "--micro-batch", "2", "--threads", "1", "--workers", "1"]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return small_training(tmp_path)


def words(places: Places, *more: str) -> list[str]:
    return [
        "finetune",
        str(places.base),
        str(places.data),
        "--images",
        str(places.images),
        "--out",
        str(places.out),
        *SMALL,
        *more,
    ]


def test_help_shows_the_official_defaults_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["finetune", "--help"])
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    for shown in (
        "--rank N width of the adapter (default: 128)",
        "(default: 0.0002;",
        "(default: 0.05)",
        "examples:",
        "non_lora",
    ):
        assert shown in text


def test_it_says_what_applies_and_gives_the_outcome_as_json(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(places, "--steps", "3", "--eval-split", "0.2", "--max-length", "220", "--json")) == 0
    shown = capsys.readouterr()
    outcome = json.loads(shown.out)
    assert outcome["adapter"] == str(places.out)
    assert outcome["steps"] == 3
    assert outcome["loss"] > 0 < outcome["held_out_loss"]
    for said in (
        "rank 4",
        "learning_rate 0.0002",
        "examples to train on",
        "GB free",
        "tower's output",
        "in 3 steps on cpu, float32",
    ):
        assert said in shown.err
    assert (places.out / "adapter_model.safetensors").is_file()


def test_a_finished_training_is_left_alone_or_gone_on_with_or_replaced(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(places, "--steps", "2")) == 0
    assert main(words(places, "--steps", "2")) == 1
    assert "--resume goes on with it" in capsys.readouterr().err
    assert main(words(places, "--steps", "2", "--resume")) == 0
    assert main(words(places, "--steps", "2", "--force")) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rank", "0"], "--rank is 0, wanted at least 1"),
        (["--save-steps", "0"], "--save-steps is 0, wanted at least 1"),
        (["--device", "abacus"], "--device abacus:"),
        (["--resume"], "nothing to resume"),
        (["--images", "/nowhere"], "/nowhere: missing: 0.png"),
        (["--vision-tower", "/nowhere"], "/nowhere"),
    ],
)
def test_what_is_wrong_is_one_line(places: Places, more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(places, *more)) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mobilevlm: ")]
    assert len(lines) == 1
    assert message in lines[0]


def test_a_wrong_item_is_told_before_anything_is_loaded(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(places.data.parent, [item([("What?", "")])])
    assert main(words(places)) == 1
    assert f"{places.data}: item 0 (id x): an empty answer" in capsys.readouterr().err


def test_a_training_that_does_not_fit_is_not_begun_unasked(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(places, "--rank", "100000000", "--steps", "1")) == 1
    shown = capsys.readouterr().err
    assert "more than is free" in shown
    assert "--yes starts all the same" in shown
    assert not places.out.exists()


def test_ctrl_c_saves_a_checkpoint_and_ends_with_130_and_one_line(places: Places) -> None:
    program = "import sys; from mobilevlm_ros.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, *words(places, "--steps", "100000")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    log = places.out / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while process.poll() is None and not (log.is_file() and log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("mobilevlm:")]
    done = re.fullmatch(r"mobilevlm: interrupted after step (\d+) of 100000; --resume goes on", line)
    assert done is not None
    assert "Traceback" not in err
    assert (places.out / "checkpoints" / f"step-{int(done[1]):08}.pt").is_file()
    assert len(log.read_text().splitlines()) == int(done[1])
