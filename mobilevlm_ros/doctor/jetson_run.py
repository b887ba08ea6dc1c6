"""Looks at one package on TensorRT: builds its engines, compares, asks, times. Whatever goes wrong ends as a failed check."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mobilevlm_ros.bench.roofline import Board
from mobilevlm_ros.doctor.check import Check, Status
from mobilevlm_ros.doctor.jetson_compare import (
    CONTEXT,
    ROUNDED_TOLERANCE,
    TOLERANCE,
    Outcome,
    Trial,
    agreement,
    answer,
    cache_is_in_place,
    make_trial,
    same_with_graphs,
)
from mobilevlm_ros.doctor.jetson_site import Site
from mobilevlm_ros.doctor.jetson_speed import Effort, Timing, figures, time_stages
from mobilevlm_ros.doctor.jetson_subjects import Look, Reference, Report, Subject, opened
from mobilevlm_ros.doctor.jetson_system import conditions
from mobilevlm_ros.doctor.models import PICTURE, QUESTION, proof_of_life
from mobilevlm_ros.doctor.simulated.libraries import OLDEST, simulated_libraries
from mobilevlm_ros.machine import gibibytes
from mobilevlm_ros.pictures.files import read_picture
from mobilevlm_ros.runtime.backends import BackendChoice
from mobilevlm_ros.runtime.engine import EngineConfig
from mobilevlm_ros.runtime.errors import VlmError
from mobilevlm_ros.runtime.manifest import Precision
from mobilevlm_ros.runtime.ort_backend import OrtBackend
from mobilevlm_ros.runtime.package import PREFILL_DIALECT, ModelPackage
from mobilevlm_ros.runtime.tensorrt.backend import DecodeMode, TensorRtBackend
from mobilevlm_ros.runtime.tensorrt.builder import EngineBuilder, EngineNeeds, Engines
from mobilevlm_ros.runtime.tensorrt.library import Libraries

_MIB = 1 << 20
_REFERENCE_MEMORY = 64 << 30
_REMEDY = "paste the output of --json into an issue; docs/jetson.md tells what to do where memory is short"


@dataclass(frozen=True)
class Run:
    """What a look needs: where, with what, for which board, a folder for engines, how thoroughly, and who is told."""

    site: Site
    libraries: Libraries
    board: Board | None
    folder: Path
    effort: Effort
    report: Report

    @property
    def needs(self) -> EngineNeeds:
        """What the engines serve: one request."""
        return EngineNeeds(1, CONTEXT, self.folder / "engines")

    def backend(self, package: ModelPackage, mode: DecodeMode) -> TensorRtBackend:
        """The package on TensorRT."""
        return TensorRtBackend(self.libraries, package, self.needs, self.report, mode)


def looked_at(run: Run, subject: Subject) -> Iterator[Check]:
    """All checks of one package, each as soon as it is known."""
    stage = "engines"
    try:
        with opened(subject, run.folder, run.report) as package:
            yield _built(run, package)
            if Look.ANSWERS in subject.looks:
                stage = "comparison"
                run.report(f"{subject.title}: comparing with the processor")
                yield from _compared(run, package, subject.reference)
            if Look.PROOF in subject.looks:
                config = EngineConfig(
                    rows=1, context_length=CONTEXT, backend=BackendChoice.TENSORRT, engine_cache=str(run.folder / "engines")
                )
                yield proof_of_life(package.path, config)
            if Look.SPEED in subject.looks:
                stage = "timing"
                run.report(f"{subject.title}: timing")
                yield from _timed(run, package)
    except VlmError as error:
        yield Check(stage, Status.FAIL, error.message, _REMEDY)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with this machine ends here as a line
        told = (str(error) or type(error).__name__).splitlines()[0]
        yield Check(stage, Status.FAIL, f"{type(error).__name__}: {told}", _REMEDY)


def _built(run: Run, package: ModelPackage) -> Check:
    """Builds the engines; raises VlmError."""
    before = lowest = run.site.free_memory(run.libraries)

    def report(line: str) -> None:
        nonlocal lowest
        lowest = min(lowest, run.site.free_memory(run.libraries))
        run.report(line)

    made: Engines = EngineBuilder(run.libraries, package, run.needs, report).engines()
    size = sum(one.path.stat().st_size for one in made.files) / _MIB
    spent = ", ".join(f"{one.role.value} in {one.built_s:.0f} s" for one in made.files)
    told = f"built {spent}; {size:.0f} MiB, {(before - lowest) / _MIB:.0f} MiB of memory taken while building"
    if made.notice:
        return Check("engines", Status.WARN, f"{told}; {made.notice}", "it works; paste the output of --json into an issue")
    return Check("engines", Status.PASS, told)


def _compared(run: Run, package: ModelPackage, reference: Reference) -> Iterator[Check]:
    trial = make_trial(package, read_picture(PICTURE), QUESTION)
    expected = None
    same = package.without_decoder(PREFILL_DIALECT)  # of the same rounding as the engines
    if short := _too_little_memory(run, same):
        yield Check("comparison", Status.SKIP, short)
    else:
        expected = _expected(run, same, trial, reference)
    captured, notice = _answered(run, package, trial, expected, DecodeMode.CAPTURED)
    plain, _ = _answered(run, package, trial, expected or captured, DecodeMode.PLAIN)
    if expected is not None:
        rounded = reference is Reference.CPU_GRAPH and package.manifest.decoder_precision is Precision.INT4
        yield from agreement(captured, expected, ROUNDED_TOLERANCE if rounded else TOLERANCE)
    yield same_with_graphs(captured, plain, notice)
    backend = run.backend(package, DecodeMode.PLAIN)
    try:
        yield cache_is_in_place(run.libraries, backend)
    finally:
        backend.close()


def _too_little_memory(run: Run, package: ModelPackage) -> str:
    """Why the processor cannot compute the reference; empty where it can. It holds float16 weights as float32."""
    needed = package.size * (2 if package.manifest.decoder_precision is Precision.FP16 else 1)
    free = run.site.free_memory(run.libraries)
    if needed <= free:
        return ""
    return f"the processor's answers take about {gibibytes(needed)} of memory, {gibibytes(free)} are free"


def _expected(run: Run, package: ModelPackage, trial: Trial, reference: Reference) -> Outcome:
    """What ONNX Runtime computes on the processor."""
    if reference is Reference.CPU_GRAPH:
        processor = OrtBackend(package, 0)
        try:
            return answer(processor, trial)
        finally:
            processor.close()
    libraries, _ = simulated_libraries(OLDEST, _REFERENCE_MEMORY)
    needs = EngineNeeds(1, CONTEXT, run.folder / "reference")
    simulated = TensorRtBackend(libraries, package, needs, lambda line: None, DecodeMode.PLAIN)
    try:
        return answer(simulated, trial)
    finally:
        simulated.close()


def _answered(run: Run, package: ModelPackage, trial: Trial, expected: Outcome | None, mode: DecodeMode) -> tuple[Outcome, str]:
    """What the engines give where they are given the expected tokens, and the backend's notice."""
    backend = run.backend(package, mode)
    try:
        return answer(backend, trial, expected.tokens if expected else ()), backend.notice
    finally:
        backend.close()


def _timed(run: Run, package: ModelPackage) -> Iterator[Check]:
    before = run.site.free_memory(run.libraries)
    captured, taken = _timing(run, package, DecodeMode.CAPTURED, before)
    plain, _ = _timing(run, package, DecodeMode.PLAIN, before)
    yield from figures(package.manifest, run.board, captured, plain, taken)


def _timing(run: Run, package: ModelPackage, mode: DecodeMode, before: int) -> tuple[Timing, int]:
    """How fast it runs, and the bytes of memory that it takes then."""
    backend = run.backend(package, mode)
    lowest = before

    def now() -> str:
        nonlocal lowest
        lowest = run.site.free_memory(run.libraries)
        return conditions(run.site.surroundings)

    try:
        timing = time_stages(backend, package.manifest, run.effort, now)
    finally:
        backend.close()
    return timing, before - lowest
