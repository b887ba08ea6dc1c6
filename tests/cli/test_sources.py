"""Folders, videos, bags and stdin as input, and annotated pictures as output, with the model that ships."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("rosbags", reason="bags are read with rosbags")
pytest.importorskip("cv2", reason="videos are read with OpenCV")

from mobilevlm_ros.cli import main
from tests.environments import run_without
from tests.recordings import BAG, bag_pictures, read_video, write_bag, write_video

ASK_BALL = "What color is the ball?"
MAIN = [sys.executable, "-c", "import sys; from mobilevlm_ros.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_video(tmp_path_factory.mktemp("video") / "table.mp4", bag_pictures()))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "first.png"
    Image.fromarray(bag_pictures()[0]).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of the recording's first and second scene, and a broken one between them."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, number in (("a.png", 0), ("c.png", 15)):
        Image.fromarray(bag_pictures()[number]).save(folder / name)
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:5000])
    return folder


def results(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


class TestInput:
    def test_a_bag_is_asked_once_a_second_and_each_answer_has_its_time_and_stamp(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["ask", str(BAG), ASK_BALL, "--temperature", "0", "--every", "3", "--json"]) == 0
        found = results(capsys)
        assert [one["time"] for one in found] == [0.0, 3.0, 6.0, 9.0]
        assert found[1]["stamp_ns"] == 1_700_000_003_000_000_000
        assert [one["text"] for one in found] == ["Orange", "Red", "Green", "Blue"]
        assert {one["image"] for one in found} == {str(BAG)}

    def test_a_video_gives_the_answers_that_its_bag_gives(self, video: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["ask", video, ASK_BALL, "--temperature", "0", "--every", "3"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "table.mp4 0.00 s: Orange",
            "table.mp4 3.00 s: Red",
            "table.mp4 6.00 s: Green",
            "table.mp4 9.00 s: Blue",
        ]

    def test_the_topic_of_a_bag_can_be_chosen(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pictures = bag_pictures()
        bag = str(write_bag(tmp_path / "run", {"/front": [pictures[0]], "/rear": [pictures[15]]}))
        assert main(["ask", bag, ASK_BALL, "--temperature", "0"]) == 1
        assert capsys.readouterr().err == f"mobilevlm: {bag}: choose one of its image topics with --topic: /front, /rear\n"
        assert main(["ask", bag, ASK_BALL, "--temperature", "0", "--topic", "/rear"]) == 0
        assert capsys.readouterr().out == "run 0.00 s: Red\n"

    def test_a_picture_on_stdin(self, picture: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(picture.read_bytes())))
        assert main(["ask", "-", ASK_BALL, "--temperature", "0", "--json"]) == 0
        (only,) = results(capsys)
        assert (only["image"], only["time"], only["text"]) == ("-", None, "Orange")

    def test_a_broken_picture_is_one_line_and_exit_code_1_and_the_others_are_answered(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["ask", str(folder), ASK_BALL, "--temperature", "0"]) == 1
        captured = capsys.readouterr()
        assert captured.out.splitlines() == ["a.png: Orange", "c.png: Red"]
        assert captured.err.count("\n") == 1
        assert captured.err.startswith(f"mobilevlm: {folder / 'b.png'}: ")

    def test_a_folder_of_broken_pictures_alone_fails(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "a.png").write_bytes(b"broken")
        assert main(["classify", str(tmp_path), "red", "blue", "--model", "nowhere"]) == 1
        assert capsys.readouterr().err == f"mobilevlm: {tmp_path / 'a.png'}: not a picture that can be read\n"

    def test_no_picture_in_the_chosen_part_is_told(self, video: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["ask", video, ASK_BALL, "--start", "11.85"]) == 1
        assert "no pictures between --start and --end" in capsys.readouterr().err

    @pytest.mark.parametrize(("missing", "source", "said"), [("cv2", "table.mp4", "OpenCV"), ("rosbags", "run.mcap", "rosbags")])
    def test_a_missing_library_is_named_with_its_remedy(self, missing: str, source: str, said: str, tmp_path: Path) -> None:
        path = tmp_path / source
        path.write_bytes(b"something")
        (tmp_path / "libraries").mkdir()
        done = run_without(tmp_path / "libraries", [missing], ["ask", str(path), "What?"])
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert f"needs {said}: install mobilevlm_ros[media]" in done.stderr

    def test_pictures_need_neither_opencv_nor_rosbags(self, picture: Path, tmp_path: Path) -> None:
        (tmp_path / "libraries").mkdir()
        drawn = tmp_path / "drawn.png"
        arguments = ["ask", str(picture), ASK_BALL, "--temperature", "0", "--annotated", str(drawn)]
        done = run_without(tmp_path / "libraries", ["cv2", "opencv", "rosbags", "tqdm", "torch", "rclpy"], arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "Orange\n", "")
        assert drawn.is_file()


class TestQuestions:
    def test_each_line_of_a_file_is_asked_about_each_picture_and_the_picture_is_encoded_once(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "questions.txt"
        file.write_text(f"{ASK_BALL}\n\n  What shape is the red object?\n", encoding="utf-8")
        assert main(["ask", str(BAG), "--questions", str(file), "--limit", "2", "--every", "3", "--json"]) == 0
        found = results(capsys)
        assert [(one["time"], one["question"]) for one in found] == [
            (time, question) for time in (0.0, 3.0) for question in (ASK_BALL, "What shape is the red object?")
        ]
        encoded = [one["timing"]["encode_ms"] > 0 for one in found]  # type: ignore[index]
        assert encoded == [True, False, True, False]

    def test_questions_may_come_through_a_pipe(
        self, picture: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{ASK_BALL}\nWhat shape is the red object?\n"))
        assert main(["ask", str(picture), "--questions", "-", "--temperature", "0"]) == 0
        assert capsys.readouterr().out.splitlines() == [f"{ASK_BALL} Orange", "What shape is the red object? Cone"]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["-", "--questions", "-"], "stdin cannot be both"),
            (["a.png", "What?", "--questions", "-"], "not both"),
            (["a.png", "--questions", "nowhere.txt"], "nowhere.txt: No such file"),
            (["a.png", "--questions", os.devnull], "no questions"),
        ],
    )
    def test_questions_that_cannot_be_had_are_told(
        self, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["ask", *arguments]) == 1
        assert said in capsys.readouterr().err

    def test_without_any_question_the_usage_is_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as done:
            main(["ask", "a.png"])
        assert done.value.code == 2
        assert "required: question" in capsys.readouterr().err

    def test_options_may_stand_before_the_question(self, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["ask", str(picture), "--temperature", "0", ASK_BALL]) == 0
        assert capsys.readouterr().out == "Orange\n"


def changed(drawn: Path, original: np.ndarray) -> np.ndarray:
    """Which pixels of a drawing differ clearly from the picture: bool [height, width]."""
    pixels = np.asarray(Image.open(drawn).convert("RGB")).astype(int)
    return np.asarray(np.abs(pixels - original).max(axis=2) > 60)


class TestAnnotated:
    def test_what_was_grounded_is_framed_where_it_was_found(
        self, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        drawn = tmp_path / "deep" / "drawn.png"
        assert main(["ground", str(picture), "the red cone", "--annotated", str(drawn), "--json"]) == 0
        x1, y1, x2, y2 = (round(value) for value in results(capsys)[0]["regions"][0]["box"])  # type: ignore[index]
        difference = changed(drawn, bag_pictures()[0])
        assert difference[y1 : y1 + 2, x1:x2].mean() > 0.9
        assert difference[y1:y2, x1 : x1 + 2].mean() > 0.9
        assert not difference[y1 + 8 : y2 - 8, x1 + 8 : x2 - 8].any()
        assert [path.name for path in drawn.parent.iterdir()] == ["drawn.png"]

    def test_each_command_writes_what_it_said_below_the_picture(self, picture: Path, tmp_path: Path) -> None:
        drawn = tmp_path / "drawn.png"
        for command in (
            ["ask", str(picture), ASK_BALL],
            ["classify", str(picture), "red", "blue"],
            ["describe", str(picture), "170", "90", "265", "180"],
            ["ground", str(picture), "the white ring"],
        ):
            drawn.unlink(missing_ok=True)
            main([*command, "--annotated", str(drawn)])
            assert changed(drawn, bag_pictures()[0])[-3:].mean() > 0.5

    def test_a_folder_becomes_a_folder_with_the_same_names(self, folder: Path, tmp_path: Path) -> None:
        assert main(["ask", str(folder), ASK_BALL, "--annotated", str(tmp_path / "drawn")]) == 1
        assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a.png", "c.png"]

    def test_the_pictures_of_a_bag_are_named_after_their_times(self, tmp_path: Path) -> None:
        main(["ask", str(BAG), ASK_BALL, "--every", "1.5", "--limit", "2", "--annotated", str(tmp_path / "drawn")])
        assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [
            "tabletop_000000.000.jpg",
            "tabletop_000001.600.jpg",
        ]

    def test_a_video_becomes_a_video_of_what_was_looked_at_at_its_pace(self, video: str, tmp_path: Path) -> None:
        drawn = tmp_path / "drawn.mp4"
        assert main(["ask", video, ASK_BALL, "--every", "0.6", "--end", "3", "--annotated", str(drawn)]) == 0
        fps, frames = read_video(drawn)
        assert fps == pytest.approx(1 / 0.6, rel=0.01)
        assert len(frames) == 5
        assert frames[0][-30:].mean() < 0.6 * bag_pictures()[0][-30:].mean()
        assert list(tmp_path.iterdir()) == [drawn]

    @pytest.mark.parametrize(("source", "path"), [("video", "drawn.png"), ("folder", "drawn.mp4"), ("picture", "drawn.mp4")])
    def test_a_path_that_does_not_suit_the_source_is_told_before_the_model_is_loaded(
        self, source: str, path: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        given = str(request.getfixturevalue(source))
        assert main(["ask", given, "What?", "--model", "nowhere", "--annotated", str(tmp_path / path)]) == 1
        assert path in capsys.readouterr().err

    def test_a_folder_that_cannot_be_made_is_one_line(
        self, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        assert main(["ask", str(picture), "What?", "--annotated", str(tmp_path / "file" / "drawn.png")]) == 1
        assert capsys.readouterr().err.count("\n") == 1


class TestShell:
    def test_interrupting_leaves_a_whole_video_and_exit_code_130(self, video: str, tmp_path: Path) -> None:
        drawn = tmp_path / "drawn.mp4"
        command = [*MAIN, "ask", video, "What is on the table?", "--every-frame", "1", "--annotated", str(drawn)]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert running.stdout is not None
        for _ in range(3):
            running.stdout.readline()
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
        assert (running.returncode, errors) == (130, "mobilevlm: interrupted\n")
        assert len(read_video(drawn)[1]) >= 2
        assert list(tmp_path.iterdir()) == [drawn]

    def test_a_reader_that_has_seen_enough_ends_it_quietly(self, video: str) -> None:
        command = [*MAIN, "ask", video, ASK_BALL, "--every-frame", "1"]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline().startswith("table.mp4 0.00 s: ")
        running.stdout.close()
        with running.stderr as errors:
            assert errors.read() == ""
        assert running.wait(60) == 0

    def test_progress_is_shown_on_a_terminal_while_results_go_elsewhere(self, video: str) -> None:
        terminal, ours = pty.openpty()
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        command = [*MAIN, "ask", video, ASK_BALL, "--every", "4", "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=ours, text=True)
        os.close(ours)
        shown = os.read(terminal, 1 << 16).decode()
        os.close(terminal)
        assert [json.loads(line)["time"] for line in done.stdout.splitlines()] == [0.0, 4.0, 8.0]
        assert "3/3" in shown

    def test_a_damaged_video_is_one_line_and_nothing_of_opencv(self, video: str, tmp_path: Path) -> None:
        damaged = tmp_path / "damaged.mp4"
        damaged.write_bytes(Path(video).read_bytes()[:2000])
        done = subprocess.run([*MAIN, "ask", str(damaged), "What?"], capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr == f"mobilevlm: {damaged}: not a video that OpenCV can read\n"
