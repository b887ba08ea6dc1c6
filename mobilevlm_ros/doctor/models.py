"""Whether the model that ships answers, and which of the known models this machine has the memory for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from mobilevlm_ros.doctor.check import Check, Status
from mobilevlm_ros.machine import Machine, gibibytes
from mobilevlm_ros.models import shipped_package

if TYPE_CHECKING:
    from mobilevlm_ros.hub.catalogue import Entry
    from mobilevlm_ros.runtime.engine import EngineConfig

PICTURE = Path(__file__).with_name("tabletop.jpg")
QUESTION, RIGHT = "What color is the ball?", "orange"

_FLOAT = 4
_AS_FLOAT32 = {"fp16": 2}
"""How much larger weights get in memory: ONNX Runtime computes with float32 where the processor has no float16 arithmetic."""

_CONTEXT = 2048
_REST = 600 << 20
"""Python, the libraries, and what is computed on the way."""

_SYSTEM = 1 << 30
"""Left to everything else on the machine."""


def proof_of_life(package: Path | None = None, config: EngineConfig | None = None) -> Check:
    """Verifies the nano model, asks it a question about a picture and compares the answer; `config` says what runs it."""
    name, remedy = "nano model", "mend what fails above; if nothing does, install again: files of the package are damaged"
    try:
        from mobilevlm_ros.pictures.files import read_picture
        from mobilevlm_ros.runtime.engine import Engine, EngineConfig
        from mobilevlm_ros.runtime.sampling import GREEDY
        from mobilevlm_ros.tasks import Settings, ask

        with Engine.open(package or shipped_package(), config or EngineConfig(rows=1)) as engine:
            frame = read_picture(PICTURE)
            start = time.perf_counter()
            text = ask(engine, frame, QUESTION, Settings(GREEDY)).text
            milliseconds = (time.perf_counter() - start) * 1e3
    except Exception as error:  # noqa: BLE001 - whatever is wrong with this machine ends here as a line
        return Check(name, Status.FAIL, (str(error) or type(error).__name__).splitlines()[0], remedy)
    answered = f"asked '{QUESTION}', it says '{text}'"
    if text.rstrip(".").lower() != RIGHT:
        return Check(name, Status.FAIL, f"{answered}, which is wrong", remedy)
    return Check(name, Status.PASS, f"verified; {answered}, which is right, in {milliseconds:.0f} ms")


def catalogue_checks(machine: Machine) -> tuple[Check, ...]:
    """For each released model the precisions in which it fits the memory."""
    from mobilevlm_ros.hub.catalogue import catalogue

    return tuple(fits(entry, machine.memory) for entry in catalogue() if entry.hub_id is not None)


def fits(entry: Entry, memory: int) -> Check:
    """In which precisions a model fits so many bytes of memory, with one request of 2048 tokens at a time."""
    needs = sorted((bytes_needed(entry, precision), precision) for precision in entry.package_bytes)
    fitting = [f"{precision} {gibibytes(size)}" for size, precision in needs if size <= memory - _SYSTEM]
    if fitting:
        return Check(entry.title, Status.PASS, f"about {', '.join(fitting)} of memory")
    size, precision = needs[0]
    remedy = f"a machine with {gibibytes(size + _SYSTEM)} or more, or a smaller model"
    return Check(entry.title, Status.MISSING, f"{precision} takes about {gibibytes(size)} of memory", remedy)


def bytes_needed(entry: Entry, precision: str) -> int:
    """About how much memory a run takes: weights, keys and values of one request, and the rest."""
    decoder = entry.config
    keys_and_values = 2 * _CONTEXT * decoder.num_hidden_layers * decoder.num_key_value_heads * decoder.head_dim * _FLOAT
    return int(entry.package_bytes[precision] * _AS_FLOAT32.get(precision, 1)) + keys_and_values + _REST
