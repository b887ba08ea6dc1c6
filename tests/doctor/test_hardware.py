"""What the doctor says of machines: this one, and ones that are made up as the files in which Linux tells of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mobilevlm_ros.doctor import hardware
from mobilevlm_ros.doctor.check import Status, Surroundings
from mobilevlm_ros.machine import Machine, read_machine

X86 = "processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\nflags\t: fpu avx2 avx512_vnni amx_int8\n\nprocessor\t: 1\nflags\t: fpu\n"
ARM = "processor\t: 0\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd asimddp crc32\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def memory(total: int, available: int) -> str:
    return f"MemTotal:       {total >> 10} kB\nMemFree:  1 kB\nMemAvailable:   {available >> 10} kB\n"


def made_up(processor: str = "CPU", gibibytes: float = 8, features: tuple[str, ...] = ("avx2",), board: str = "") -> Machine:
    return Machine(processor, 4, int(gibibytes * 2**30), int(gibibytes * 2**30), features, board)


class TestMachine:
    def test_this_machine_has_a_processor_and_memory(self) -> None:
        machine = read_machine()
        assert machine.processor
        assert machine.cores == len(os.sched_getaffinity(0))
        assert 0 < machine.available <= machine.memory

    def test_an_x86_machine(self, tmp_path: Path) -> None:
        files = {"proc/cpuinfo": X86, "proc/meminfo": memory(8 << 30, 6 << 30)}
        machine = read_machine(write(tmp_path, files))
        assert machine.processor == "Fast CPU @ 3 GHz"
        assert (machine.memory, machine.available) == (8 << 30, 6 << 30)
        assert machine.features == ("avx2", "avx512_vnni", "amx_int8")

    def test_a_jetson_tells_its_name_in_the_device_tree(self, tmp_path: Path) -> None:
        files = {"proc/cpuinfo": ARM, "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0"}
        machine = read_machine(write(tmp_path, files))
        assert machine.board == machine.processor == "NVIDIA Jetson AGX Orin Developer Kit"
        assert machine.features == ("asimd", "asimddp")

    def test_the_limit_of_a_container_counts(self, tmp_path: Path) -> None:
        files = {"proc/meminfo": memory(64 << 30, 60 << 30), "sys/fs/cgroup/memory.max": f"{4 << 30}\n"}
        files["sys/fs/cgroup/memory.current"] = f"{1 << 30}\n"
        machine = read_machine(write(tmp_path, files))
        assert (machine.memory, machine.available) == (4 << 30, 3 << 30)

    def test_no_limit_is_no_limit(self, tmp_path: Path) -> None:
        files = {"proc/meminfo": memory(64 << 30, 60 << 30), "sys/fs/cgroup/memory.max": "max\n"}
        assert read_machine(write(tmp_path, files)).memory == 64 << 30

    def test_a_system_that_tells_nothing_is_no_error(self, tmp_path: Path) -> None:
        machine = read_machine(tmp_path)
        assert (machine.memory, machine.features, machine.board) == (0, (), "")
        assert machine.processor


class TestChecks:
    def test_instructions_that_are_missing_are_named(self) -> None:
        check = hardware.instructions(made_up(features=()), "x86_64")
        assert check.status is Status.WARN
        assert "avx2" in check.remedy
        assert hardware.instructions(made_up(features=("asimd", "asimddp")), "aarch64").status is Status.PASS
        assert hardware.instructions(made_up(features=("asimd",)), "aarch64").status is Status.WARN

    def test_little_memory_is_a_warning(self) -> None:
        assert hardware.memory(made_up(gibibytes=1)).status is Status.WARN
        assert hardware.memory(made_up(gibibytes=8)).detail == "8.0 GiB, 8.0 GiB free"

    def test_the_disk_is_that_of_the_download_folder_even_before_it_exists(self, tmp_path: Path) -> None:
        check = hardware.disk(Surroundings({"HF_HOME": str(tmp_path / "not" / "yet")}))
        assert str(tmp_path / "not" / "yet") in check.detail
        assert hardware.disk(Surroundings({"HOME": str(tmp_path)})).detail.endswith(f"{tmp_path}/.cache/huggingface")

    def test_a_full_disk_is_a_warning(self) -> None:
        check = hardware.disk(Surroundings({"HF_HOME": "/proc/downloads"}))  # of size 0, whatever machine this is
        assert check.status is Status.WARN
        assert "HF_HOME" in check.remedy


def nvidia_smi(folder: Path, script: str) -> Surroundings:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    return Surroundings({"PATH": str(folder)})


class TestGpu:
    def test_none_is_nothing_to_worry_about(self) -> None:
        check = hardware.gpu(made_up(), Surroundings({"PATH": ""}))
        assert (check.status, check.remedy) == (Status.MISSING, "nothing to do: models run on the processor")

    def test_nvidia_smi_tells_of_one(self, tmp_path: Path) -> None:
        check = hardware.gpu(made_up(), nvidia_smi(tmp_path, "echo 'Fast GPU, 24576 MiB, 560.1'"))
        assert check.status is Status.PASS
        assert check.detail.startswith("Fast GPU, 24576 MiB, 560.1 (")

    @pytest.mark.parametrize("script", ["echo 'NVIDIA-SMI has failed'; exit 9", "true", "echo 'no devices' >&2; exit 6"])
    def test_a_driver_that_does_not_work_is_a_warning(self, script: str, tmp_path: Path) -> None:
        check = hardware.gpu(made_up(), nvidia_smi(tmp_path, script))
        assert check.status is Status.WARN
        assert "driver" in check.remedy

    def test_a_jetson_is_known_without_nvidia_smi(self) -> None:
        check = hardware.gpu(made_up(board="NVIDIA Jetson Orin Nano"), Surroundings({"PATH": ""}))
        assert check.status is Status.PASS
        assert "Jetson Orin Nano" in check.detail
