"""The demo from its command line: the recorded tabletop, a picture, a camera, a broken model and Ctrl-C."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from rclpy.node import Node

from tests.system.graph import Camera, picture, until

SECONDS = 90.0


class Demo:
    """A run of the demo, and what is left of its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mark = uuid.uuid4().hex
        self._environment = {**os.environ, "MOBILEVLM_TEST_MARK": self._mark}

    def start(self, *arguments: object, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Starts it in its own folder."""
        return subprocess.Popen(
            [sys.executable, "-m", "mobilevlm_ros.demo", *map(str, arguments)],
            cwd=self.folder,
            env=self._environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: object) -> tuple[int, str]:
        """Runs it to its end; returns the exit code and what it printed."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=SECONDS)
        return process.returncode, output

    def left_over(self) -> list[int]:
        """Processes of this run that are still there."""
        mark = f"MOBILEVLM_TEST_MARK={self._mark}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
        return found


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    run = Demo(tmp_path)
    yield run
    for pid in run.left_over():
        os.kill(pid, signal.SIGKILL)


def test_the_recorded_tabletop_ends_with_right_answers_and_pictures(demo: Demo, nano_package: Path) -> None:
    code, output = demo.run()
    assert code == 0, output
    assert output.count(" right ") == 8
    assert "WRONG" not in output
    for name in ("annotated.png", "annotated_2.png"):
        assert f"demo_output/{name}" in output
        with PillowImage.open(demo.folder / "demo_output" / name) as opened:
            assert opened.size == (640, 480)
    assert demo.left_over() == []


def test_wrong_answers_are_named_and_end_with_1(demo: Demo, random_package: Path) -> None:
    code, output = demo.run("--model", random_package)
    assert code == 1
    assert output.count("WRONG") >= 3
    assert "answers were wrong" in output
    assert demo.left_over() == []


def test_a_picture_is_asked_about(demo: Demo, random_package: Path) -> None:
    PillowImage.fromarray(picture(300, 200)).save(demo.folder / "my photo.jpg")
    code, output = demo.run("--image", "my photo.jpg", "--model", random_package)
    assert code == 0, output
    assert "What is in the image?" in output
    assert demo.left_over() == []


def test_a_camera_of_the_users_own_is_asked_about(demo: Demo, random_package: Path, tester: Node) -> None:
    with Camera(tester, "/my_camera/image_raw").streaming(10.0, np.zeros((48, 64, 3), np.uint8)):
        code, output = demo.run("--camera", "/my_camera/image_raw", "--model", random_package)
    assert code == 0, output
    assert "/my_camera/image_raw" in output
    assert demo.left_over() == []


def test_on_a_terminal_questions_are_typed(demo: Demo, random_package: Path) -> None:
    PillowImage.fromarray(picture(300, 200)).save(demo.folder / "photo.png")
    keyboard, terminal = pty.openpty()
    process = demo.start("--image", "photo.png", "--model", random_package, stdin=terminal)
    os.write(keyboard, b"How many?\nfind the mug\n\x04")
    output, _ = process.communicate(timeout=SECONDS)
    os.close(keyboard)
    os.close(terminal)
    assert process.returncode == 0, output
    assert "How many?" in output
    assert "NO_GROUNDING" in output
    assert demo.left_over() == []


def test_a_broken_model_package_is_one_clear_line(demo: Demo) -> None:
    code, output = demo.run("--model", demo.folder / "nothing")
    assert code == 1
    (line,) = [line for line in output.splitlines() if line.startswith("  problem")]
    assert str(demo.folder / "nothing") in line
    assert "Traceback" not in output
    assert demo.left_over() == []


def test_a_picture_that_is_not_there_is_told_before_anything_starts(demo: Demo) -> None:
    code, output = demo.run("--image", "nothing.jpg")
    assert (code, output) == (2, "./demo: there is no picture 'nothing.jpg'\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_every_process(demo: Demo, random_package: Path, number: int) -> None:
    process = demo.start("--model", random_package)
    until(lambda: len(demo.left_over()) == 3)
    assert process.stdout
    for line in process.stdout:
        if line.startswith("  node"):
            break
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert demo.left_over() == []


def test_help_shows_every_way_to_run_it(demo: Demo) -> None:
    code, output = demo.run("--help")
    assert code == 0
    for option in ("--camera", "--image", "--model", "--output"):
        assert option in output
