"""One run of the demo: sets the stage, lets the tour or the user ask, and sums up."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from mobilevlm_ros.demo import live, truth
from mobilevlm_ros.demo.processes import Child
from mobilevlm_ros.demo.stage import NODE, Camera, Stage, open_stage
from mobilevlm_ros.demo.terminal import Terminal
from mobilevlm_ros.demo.tour import Tour
from mobilevlm_ros.runtime.errors import VlmError

BAG = Path(__file__).resolve().parent / "tabletop.mcap"
TOPIC = "/camera/image_raw"


def run(arguments: argparse.Namespace, logs: Path) -> int:
    """Runs the demo that the command line asks for; returns the exit code. `logs` is a folder for the processes' output."""
    terminal = Terminal()
    terminal.title("MobileVLM in a ROS 2 graph")
    camera = _camera(arguments)
    started = time.monotonic()
    stage: Stage | None = None
    try:
        with open_stage(camera, arguments.model, logs) as stage:
            terminal.line("camera", _describe(arguments, camera))
            model = stage.wait_until_ready()
            terminal.line("node", f"{NODE} serves the model '{model}', ready after {time.monotonic() - started:.1f} s")
            worked = _show(arguments, stage, terminal)
    except VlmError as error:
        terminal.problem(f"{error.code.name}: {error.message}")
        _print_logs(logs)
        return 1
    return 0 if _ended_cleanly(stage, terminal) and worked else 1


def _show(arguments: argparse.Namespace, stage: Stage, terminal: Terminal) -> bool:
    """Returns whether all that is known to be right or wrong was right."""
    if not (arguments.camera or arguments.image):
        return _tour(arguments, stage, terminal)
    if sys.stdin.isatty():
        live.interactive(stage, terminal, arguments.output)
    else:
        live.standard(stage, terminal)
    return True


def _tour(arguments: argparse.Namespace, stage: Stage, terminal: Terminal) -> bool:
    tour = Tour(stage, truth.read(BAG.with_suffix(".json")), terminal, arguments.output)
    tour.run()
    for picture in tour.pictures:
        terminal.line("picture", str(picture))
    if tour.wrong:
        terminal.problem(f"{tour.wrong} of {tour.answers} answers were wrong")
    else:
        terminal.line("done", f"all {tour.answers} answers were right")
    return not tour.wrong


def _camera(arguments: argparse.Namespace) -> Camera:
    if arguments.camera:
        return Camera(arguments.camera)
    if arguments.image:
        remap = ("--ros-args", "-r", f"image:={TOPIC}")
        return Camera(TOPIC, "mobilevlm_ros.demo.photo", (str(arguments.image), *remap))
    return Camera(TOPIC, "mobilevlm_ros.demo.player", (str(BAG),))


def _describe(arguments: argparse.Namespace, camera: Camera) -> str:
    if arguments.camera:
        return f"yours, on {camera.topic}"
    if arguments.image:
        return f"{arguments.image}, on {camera.topic}"
    return f"{BAG.name}, a recorded tabletop, on {camera.topic}"


def _ended_cleanly(stage: Stage, terminal: Terminal) -> bool:
    children: list[Child] = [child for child in (stage.camera, stage.model) if child]
    failed = [child for child in children if child.ended != 0]
    for child in failed:
        terminal.problem(f"the process {child.name} ended with {child.ended}")
    return not failed


def _print_logs(logs: Path) -> None:
    for log in sorted(logs.glob("*.log")):
        for line in log.read_text(errors="replace").splitlines()[-8:]:
            print(f"    {log.stem}: {line}", file=sys.stderr)
