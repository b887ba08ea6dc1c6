"""`mobilevlm doctor --jetson`: all checks of a Jetson, in order, each as soon as it is known.

Builds engines as a node would, compares what they give with the processor's answers, and times them. Whatever goes wrong ends as
a line. Knows the order of checks; what each one does stands in the other modules of this name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mobilevlm_ros.doctor.check import Check, Figure, Group, Status
from mobilevlm_ros.doctor.jetson_machine import library_checks, missing_libraries, system_checks
from mobilevlm_ros.doctor.jetson_run import Run, looked_at
from mobilevlm_ros.doctor.jetson_site import Nature, Site
from mobilevlm_ros.doctor.jetson_speed import BRIEF, THOROUGH
from mobilevlm_ros.doctor.jetson_subjects import Look, Reference, Report, Shipped, Subject
from mobilevlm_ros.doctor.jetson_system import known_board
from mobilevlm_ros.doctor.work_folder import work_folder
from mobilevlm_ros.machine import gibibytes, read_machine
from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.errors import VlmError
from mobilevlm_ros.runtime.tensorrt.library import Libraries

SYSTEM, END = "Jetson", "in all"
_COMPARED = frozenset({Look.ANSWERS})
_ROOM_FOR_FP16 = 12 << 30
"""Building holds the 3 GB of weights twice, beside the system."""


@dataclass(frozen=True)
class Wish:
    """What to look at: a package of the user's in place of the doctor's own, and whether the full size is timed."""

    package: Path | None = None
    full_size: bool = True


def examine_jetson(site: Site, wish: Wish, work: Path, report: Report = lambda line: None) -> Iterator[Group]:
    """Look at everything.

    Args:
        work: folder for made-up weights and engines, which are removed afterwards.
        report: is told what takes long.

    Raises:
        OSError: nothing can be written below `work`.
    """
    machine = read_machine(site.surroundings.root)
    yield Group(SYSTEM, system_checks(site, machine))
    try:
        libraries = site.open_libraries()
        yield Group(SYSTEM, library_checks(libraries))
    except VlmError as error:
        missing = tuple(missing_libraries()) if site.nature is Nature.REAL else ()
        yield Group(SYSTEM, missing or (Check("CUDA", Status.FAIL, error.message, "see docs/jetson.md"),))
        for subject in subjects(site, wish):
            yield _skipped(subject.title, "TensorRT or CUDA is missing")
        return
    yield from _look_at_all(site, wish, libraries, work, report)
    yield Group(END, tuple(_at_the_end(site)))


def subjects(site: Site, wish: Wish) -> list[Subject]:
    """What is looked at, in order."""
    if wish.package is not None:
        return [Subject(wish.package.name, wish.package, frozenset({Look.ANSWERS, Look.SPEED}))]
    small = _COMPARED | {Look.SPEED} if site.nature is Nature.SIMULATED else _COMPARED
    found = [
        Subject("nano fp16", shipped_package(), _COMPARED | {Look.PROOF}),
        Subject("small INT4", Shipped.SMALL_INT4, small, Reference.PORTABLE_GRAPH),
    ]
    if wish.full_size and site.nature is Nature.REAL:
        found.append(Subject("1.7B INT4", Shipped.FULL_INT4, frozenset({Look.SPEED})))
        found.append(Subject("1.7B fp16", Shipped.FULL_FP16, frozenset({Look.SPEED})))
    return found


def _look_at_all(site: Site, wish: Wish, libraries: Libraries, work: Path, report: Report) -> Iterator[Group]:
    machine = read_machine(site.surroundings.root)
    effort = BRIEF if site.nature is Nature.SIMULATED else THOROUGH
    decode: dict[str, float] = {}
    for subject in subjects(site, wish):
        if subject.source is Shipped.FULL_FP16 and machine.memory < _ROOM_FOR_FP16:
            yield _skipped(subject.title, f"it is not built with less than {gibibytes(_ROOM_FOR_FP16)} of memory")
            continue
        with work_folder(work) as folder:
            run = Run(site, libraries, known_board(machine), folder, effort, report)
            for check in looked_at(run, subject):
                if isinstance(check, Figure) and check.name == "decode":
                    decode[subject.title] = check.value
                yield Group(subject.title, (check,))
    if wish.package is None and not (wish.full_size and site.nature is Nature.REAL):
        reason = "a simulation tells no speed" if site.nature is Nature.SIMULATED else "left out with --quick"
        yield _skipped("1.7B", reason)
    if {"1.7B INT4", "1.7B fp16"} <= decode.keys():
        yield Group("1.7B", (int4_gain(decode["1.7B INT4"], decode["1.7B fp16"]),))


def int4_gain(int4: float, fp16: float) -> Check:
    """Whether INT4 is worth it, from both rates in tokens a second."""
    told = f"decode is {int4 / fp16:.1f} times as fast as in fp16"
    if int4 <= fp16:
        return Check("INT4", Status.WARN, told, "convert with --precision fp16 where memory suffices; paste --json into an issue")
    return Check("INT4", Status.PASS, told)


def _at_the_end(site: Site) -> Iterator[Check]:
    if site.nature is Nature.REAL:
        return
    problems = site.problems()
    if problems:
        yield Check("driver", Status.FAIL, f"{len(problems)} mistakes were made, the last: {problems[-1]}", "report this")
    else:
        yield Check("driver", Status.PASS, "nothing was done that a device would not have borne, all memory was given back")
    yield Check(
        "TensorRT's kernels", Status.SKIP, "whether TensorRT takes the graphs, and how exact and fast it is, shows on a Jetson"
    )


def _skipped(title: str, reason: str) -> Group:
    return Group(title, (Check("all", Status.SKIP, f"not looked at: {reason}"),))
