"""Pictures from wherever they are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilevlm_ros.pictures.sampling import EveryFrame, EverySeconds, Sampling
from mobilevlm_ros.pictures.source import Sample, Source, SourceKind, Unreadable, kind_of, open_source
from mobilevlm_ros.runtime.errors import VlmError
from tests.recordings import BAG, BAG_PICTURES, BAG_TOPIC, START_NS, Pixels, bag_pictures, write_bag, write_video

pytest.importorskip("rosbags", reason="bags are read with rosbags")
pytest.importorskip("cv2", reason="videos are read with OpenCV")


@pytest.fixture(scope="module")
def pictures() -> list[Pixels]:
    return bag_pictures()


@pytest.fixture(scope="module")
def video(pictures: Sequence[Pixels], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "run.mp4", pictures)


def samples(source: Source) -> list[Sample]:
    found = list(source.items)
    assert all(isinstance(item, Sample) for item in found)
    return [item for item in found if isinstance(item, Sample)]


def picture_file(path: Path, shade: int = 90) -> Path:
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(path)
    return path


def jpeg(picture: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG")
    return stream.getvalue()


class TestFiles:
    def test_a_picture_file_is_one_picture_without_a_time(self, tmp_path: Path) -> None:
        path = picture_file(tmp_path / "a.png")
        (only,) = samples(open_source(str(path)))
        assert (only.name, only.label, only.seconds, only.stamp_ns) == (str(path), "a.png", None, None)
        assert only.frame.pixels[0, 0].tolist() == [90, 0, 0]

    def test_a_dash_is_a_picture_on_stdin(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        content = picture_file(tmp_path / "a.png").read_bytes()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        (only,) = samples(open_source("-"))
        assert (only.name, only.frame.width) == ("-", 8)

    def test_nothing_on_stdin_is_no_picture(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
        with pytest.raises(VlmError, match="stdin: not a picture"):
            open_source("-")

    def test_a_folder_is_its_pictures_in_the_order_of_names(self, tmp_path: Path) -> None:
        for name in ("b.png", "a.jpg", "C.PNG"):
            picture_file(tmp_path / name)
        (tmp_path / "notes.txt").write_text("no picture")
        source = open_source(str(tmp_path))
        assert (source.kind, source.expected) == (SourceKind.FOLDER, 3)
        assert [sample.label for sample in samples(source)] == ["C.PNG", "a.jpg", "b.png"]

    def test_a_folder_can_be_limited(self, tmp_path: Path) -> None:
        for name in "abc":
            picture_file(tmp_path / f"{name}.png")
        assert [sample.label for sample in samples(open_source(str(tmp_path), Sampling(limit=2)))] == ["a.png", "b.png"]

    def test_a_broken_picture_in_a_folder_does_not_stop_the_others(self, tmp_path: Path) -> None:
        for name in "ac":
            picture_file(tmp_path / f"{name}.png")
        (tmp_path / "b.png").write_bytes(b"broken")
        first, broken, last = open_source(str(tmp_path)).items
        assert isinstance(broken, Unreadable)
        assert "b.png: not a picture" in broken.error.message
        assert isinstance(first, Sample)
        assert isinstance(last, Sample)

    def test_a_file_that_is_not_there_is_told_at_once(self) -> None:
        for name in ("nowhere.png", "nowhere.mp4", "nowhere.mcap"):
            with pytest.raises(VlmError, match=name):
                open_source(name)

    def test_a_topic_of_a_picture_makes_no_sense(self, tmp_path: Path) -> None:
        with pytest.raises(VlmError, match="in a bag only"):
            open_source(str(picture_file(tmp_path / "a.png")), topic="/camera")

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("a.MP4", SourceKind.VIDEO),
            ("a.webm", SourceKind.VIDEO),
            ("a.mcap", SourceKind.BAG),
            ("a.db3", SourceKind.BAG),
            ("a.bag", SourceKind.BAG),
            ("a.png", SourceKind.PICTURE),
            ("picture", SourceKind.PICTURE),
            ("-", SourceKind.PICTURE),
        ],
    )
    def test_the_name_tells_what_a_file_is(self, name: str, kind: SourceKind) -> None:
        assert kind_of(name) is kind


class TestVideo:
    def test_a_picture_a_second_with_its_time(self, video: Path) -> None:
        source = open_source(str(video))
        found = samples(source)
        assert (source.kind, source.expected, source.rate) == (SourceKind.VIDEO, 12, 1.0)
        assert [sample.seconds for sample in found] == pytest.approx(list(range(12)))
        assert found[3].label == "run.mp4 3.00 s"

    def test_the_pictures_are_those_of_their_times_in_rgb(self, video: Path, pictures: Sequence[Pixels]) -> None:
        for sample in samples(open_source(str(video), Sampling(EverySeconds(4.0)))):
            assert sample.seconds is not None
            original = pictures[round(sample.seconds * 5)]
            assert np.abs(sample.frame.pixels.astype(int) - original).mean() < 4

    def test_a_part_of_it(self, video: Path) -> None:
        source = open_source(str(video), Sampling(EveryFrame(2), 2.0, 4.0))
        assert [sample.seconds for sample in samples(source)] == pytest.approx([2.0, 2.4, 2.8, 3.2, 3.6])
        assert source.rate == pytest.approx(2.5)

    def test_a_start_behind_the_end_is_told(self, video: Path) -> None:
        with pytest.raises(VlmError, match="the video is 12.00 s long, --start is 20"):
            open_source(str(video), Sampling(start=20.0))

    def test_a_damaged_video_is_one_line(self, video: Path, tmp_path: Path) -> None:
        damaged = tmp_path / "damaged.mp4"
        damaged.write_bytes(video.read_bytes()[:2000])
        with pytest.raises(VlmError, match="not a video that OpenCV can read"):
            open_source(str(damaged))


class TestBag:
    def test_the_demo_recording_is_read_without_ros(self, pictures: Sequence[Pixels]) -> None:
        source = open_source(str(BAG), Sampling(EveryFrame(20)))
        found = samples(source)
        assert (source.kind, source.expected) == (SourceKind.BAG, BAG_PICTURES // 20)
        assert [sample.seconds for sample in found] == pytest.approx([0.0, 4.0, 8.0])
        assert [sample.stamp_ns for sample in found] == [START_NS + seconds * 10**9 for seconds in (0, 4, 8)]
        assert all(np.array_equal(sample.frame.pixels, picture) for sample, picture in zip(found, pictures[::20]))

    @pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
    def test_a_bag_folder_of_raw_pictures_in_either_storage(self, storage: str, tmp_path: Path, pictures: list[Pixels]) -> None:
        folder = write_bag(tmp_path / "run", {"/front": pictures[:6]}, storage)
        found = samples(open_source(str(folder)))
        assert [sample.seconds for sample in found] == pytest.approx([0.0, 1.0, 2.0])
        assert found[1].stamp_ns == START_NS + 10**9 - 5_000_000
        assert all(np.array_equal(sample.frame.pixels, picture) for sample, picture in zip(found, pictures[::2]))

    @pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
    def test_a_single_file_of_a_bag(self, storage: str, tmp_path: Path, pictures: list[Pixels]) -> None:
        folder = write_bag(tmp_path / "run", {"/front": pictures[:3]}, storage)
        (file,) = [path for path in folder.iterdir() if path.suffix in (".mcap", ".db3")]
        assert len(samples(open_source(str(file), Sampling(EveryFrame(1))))) == 3

    def test_of_several_image_topics_one_must_be_chosen(self, tmp_path: Path, pictures: list[Pixels]) -> None:
        folder = str(write_bag(tmp_path / "run", {"/rear": pictures[:1], "/front": [jpeg(pictures[20])]}))
        with pytest.raises(VlmError, match="--topic: /front, /rear"):
            open_source(folder)
        with pytest.raises(VlmError, match="no image topic /left; there are /front, /rear"):
            open_source(folder, topic="/left")
        (front,) = samples(open_source(folder, topic="/front"))
        assert np.abs(front.frame.pixels.astype(int) - pictures[20]).mean() < 4

    def test_a_damaged_picture_does_not_stop_the_others(self, tmp_path: Path, pictures: list[Pixels]) -> None:
        good = jpeg(pictures[0])
        folder = write_bag(tmp_path / "run", {"/front": [good, good[:900], good]}, fps=1.0)
        kinds = [type(item) for item in open_source(str(folder)).items]
        assert kinds == [Sample, Unreadable, Sample]

    def test_a_damaged_bag_is_one_line(self, tmp_path: Path) -> None:
        damaged = tmp_path / "damaged.mcap"
        damaged.write_bytes(BAG.read_bytes()[:3000])
        with pytest.raises(VlmError, match="not a bag that can be read") as caught:
            open_source(str(damaged))
        assert "\n" not in caught.value.message

    def test_a_start_behind_the_end_is_told(self) -> None:
        with pytest.raises(VlmError, match="the bag is 11.80 s long"):
            open_source(str(BAG), Sampling(start=12.0), BAG_TOPIC)
