"""What a Jetson tells of itself, read from files that are made up after real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.bench.roofline import Board, Orin
from mobilevlm_ros.doctor.check import Status, Surroundings
from mobilevlm_ros.doctor.jetson_machine import board, clocks, memory, missing_libraries, pairing, power, release
from mobilevlm_ros.doctor.jetson_site import Site
from mobilevlm_ros.doctor.jetson_system import (
    Clock,
    conditions,
    is_highest,
    jetpack_version,
    known_board,
    parse_power_mode,
    power_mode,
    read_clocks,
)
from mobilevlm_ros.doctor.simulated.jetson import Pretended, pretended_jetson
from mobilevlm_ros.machine import Machine

GIB = 1 << 30
GPU = "sys/class/devfreq/17000000.gpu"
LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"))


def machine(name: str, gib: float) -> Machine:
    return Machine("ARM", 8, int(gib * GIB), int(gib * GIB), (), name)


def site(root: Path, python: str = "3.10.12", **environ: str) -> Site:
    return Site(Surroundings(environ, root), python=python)


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class TestPowerMode:
    def test_it_is_found_behind_warnings_and_the_fans(self) -> None:
        told = "NVPM WARN: fan mode is not set!\nNV Fan Mode:quiet\nNV Power Mode: MODE_30W\n2\n"
        assert parse_power_mode(told) == "MODE_30W"

    @given(before=st.lists(LINES), after=st.lists(LINES), name=st.from_regex(r"[A-Z0-9_]{1,12}", fullmatch=True))
    def test_it_is_found_wherever_it_stands(self, before: list[str], after: list[str], name: str) -> None:
        before = [line for line in before if "NV Power Mode:" not in line]
        assert parse_power_mode("\n".join([*before, f"NV Power Mode: {name}", *after])) == name

    @given(st.text())
    def test_no_text_is_too_odd(self, text: str) -> None:
        assert parse_power_mode(text) == parse_power_mode(text).strip()

    def test_the_tool_is_asked_wherever_it_lies(self, tmp_path: Path) -> None:
        assert power_mode(Surroundings({}, tmp_path)) == ""
        write(tmp_path, usr__sbin__nvpmodel="#!/bin/sh\necho NV Power Mode: 15W\necho $1\n")
        (tmp_path / "usr/sbin/nvpmodel").chmod(0o755)
        assert power_mode(Surroundings({"PATH": "/usr/bin:/bin"}, tmp_path)) == "15W"

    def test_a_tool_that_does_not_start_tells_none(self, tmp_path: Path) -> None:
        write(tmp_path, usr__sbin__nvpmodel="#!/nothing/there\n")
        (tmp_path / "usr/sbin/nvpmodel").chmod(0o755)
        assert power_mode(Surroundings({}, tmp_path)) == ""

    @pytest.mark.parametrize(("mode", "highest"), [("MAXN", True), ("MAXN_SUPER", True), ("MODE_30W", False), ("15W", False)])
    def test_only_the_highest_is_what_predictions_are_for(self, mode: str, highest: bool) -> None:
        assert is_highest(mode) is highest


class TestRelease:
    def test_jetpack_follows_from_the_release(self) -> None:
        assert jetpack_version("36.4.3", "") == "6"
        assert jetpack_version("39.2.0", "") == "7"
        assert jetpack_version("99.0", "") == jetpack_version("", "") == ""

    def test_where_its_package_is_installed_that_tells_it_exactly(self) -> None:
        status = (
            "Package: nvidia-jetpack-dev\nVersion: 1\n\nPackage: nvidia-jetpack\nStatus: ok\nVersion: 6.2.1+b38\n\nPackage: z\n"
        )
        assert jetpack_version("36.4.4", status) == "6.2.1"

    @given(st.text(), st.text())
    def test_no_text_is_too_odd(self, l4t: str, packages: str) -> None:
        assert set(jetpack_version(l4t, f"Package: nvidia-jetpack\n{packages}")) <= set("0123456789.")

    def test_a_pc_is_told_to_be_none(self, tmp_path: Path) -> None:
        check = release(site(tmp_path))
        assert check.status is Status.MISSING
        assert "this is no Jetson" in check.detail
        assert board(machine("", 8)).status is Status.MISSING


class TestBoard:
    @pytest.mark.parametrize(
        ("name", "gib", "known"),
        [
            ("NVIDIA Jetson AGX Orin Developer Kit", 61.4, Orin.AGX_64.value),
            ("NVIDIA Jetson AGX Orin 32GB", 29.9, Orin.AGX_32.value),
            ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", 15.3, Orin.NX_16.value),
            ("NVIDIA Jetson Orin NX", 7.4, Orin.NX_8.value),
            ("NVIDIA Jetson Orin Nano Developer Kit Super", 7.4, Orin.NANO_8.value),
            ("NVIDIA Jetson Orin Nano", 3.4, None),
            ("NVIDIA Jetson AGX Thor Developer Kit", 122.0, None),
            ("Raspberry Pi 5", 7.9, None),
        ],
    )
    def test_a_module_is_known_by_its_name_and_its_memory(self, name: str, gib: float, known: Board | None) -> None:
        assert known_board(machine(name, gib)) == known
        assert ("no figures are predicted" in board(machine(name, gib)).detail) is (known is None)

    def test_too_little_free_memory_is_a_warning_that_says_what_to_do(self) -> None:
        short = replace(machine("NVIDIA Jetson Orin Nano", 7.4), available=2 * GIB)
        assert (memory(short).status, memory(machine("", 8)).status) == (Status.WARN, Status.PASS)
        assert "add swap" in memory(short).remedy


class TestClocks:
    def test_those_that_can_be_read_are_told(self, tmp_path: Path) -> None:
        assert read_clocks(tmp_path) == ()
        write(tmp_path, **{f"{GPU}/cur_freq": "306000000\n", f"{GPU}/max_freq": "1300500000\n"})
        write(tmp_path, sys__class__devfreq__other__cur_freq="1\n")
        assert read_clocks(tmp_path) == (Clock("GPU", 306, 1300),)
        assert clocks(site(tmp_path)).status is Status.WARN
        assert clocks(site(tmp_path)).detail.startswith("GPU 306 of 1300 MHz")

    @given(st.one_of(st.text(max_size=20), st.integers().map(str)))
    def test_no_content_of_a_file_is_too_odd(self, text: str) -> None:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / GPU).mkdir(parents=True)
            (root / GPU / "cur_freq").write_text(text, encoding="utf-8", errors="replace")
            assert all(clock.now > 0 for clock in read_clocks(root))

    def test_beside_a_figure_stand_power_mode_and_clocks(self) -> None:
        with pretended_jetson(Pretended.SEVEN) as pretended:
            assert conditions(pretended.surroundings) == "MAXN, GPU 1300 MHz, memory 3199 MHz, CPU 2201 MHz"

    def test_where_nothing_tells_them_that_is_told(self, tmp_path: Path) -> None:
        assert conditions(Surroundings({}, tmp_path)) == "power mode unknown"
        assert power(site(tmp_path)).status is clocks(site(tmp_path)).status is Status.MISSING


class TestPythonAndRos:
    @pytest.mark.parametrize(
        ("python", "ros", "status"),
        [
            ("3.10.12", "humble", Status.PASS),
            ("3.12.3", "jazzy", Status.WARN),  # a JetPack 6 has another Ubuntu, and TensorRT for its Python
            ("3.12.3", "humble", Status.FAIL),
            ("3.10.12", "iron", Status.WARN),
            ("3.10.12", "", Status.MISSING),
        ],
    )
    def test_they_must_belong_together(self, python: str, ros: str, status: Status, tmp_path: Path) -> None:
        write(tmp_path, etc__nv_tegra_release="# R36 (release), REVISION: 4.3, GCID: 1\n")
        assert pairing(site(tmp_path, python, ROS_DISTRO=ros)).status is status


def test_each_library_that_is_missing_gets_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobilevlm_ros.runtime.tensorrt.cudart.candidates", list)
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    checks = list(missing_libraries())
    assert [(check.name, check.status) for check in checks] == [("TensorRT", Status.FAIL), ("CUDA", Status.FAIL)]
    assert all("\n" not in check.detail for check in checks)
