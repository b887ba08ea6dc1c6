"""The file of an adapter's weights: the safetensors layout, mapped from disk, and whatever is no such file told in one line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.runtime.errors import PackageError
from mobilevlm_ros.runtime.tensor_file import ALIGNMENT, TensorEntry, read_tensors, tensor_header

Tensors = dict[str, np.ndarray]

ARRAYS = st.builds(
    lambda shape, kind: np.arange(np.prod(shape), dtype=kind).reshape(shape),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.sampled_from([np.float32, np.float16]),
)
TENSORS = st.dictionaries(st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__"), ARRAYS, max_size=5)


def content(tensors: Tensors) -> bytes:
    """A file with these tensors, the wider ones first, as the converter writes it."""
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].itemsize))
    header = tensor_header({name: TensorEntry(array.dtype, array.shape) for name, array in ordered.items()})
    return header + b"".join(array.tobytes() for array in ordered.values())


@given(TENSORS)
def test_what_was_written_is_read(tensors: Tensors) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "t").write_bytes(content(tensors))
        found = read_tensors(Path(folder) / "t")
        assert set(found) == set(tensors)
        for name, array in tensors.items():
            assert found[name].dtype == array.dtype
            assert np.array_equal(found[name], array)


def test_the_safetensors_library_reads_it_too(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="the library comes with the converter")
    tensors: Tensors = {"a": np.ones((3, 2), np.float16), "b": np.arange(4, dtype=np.float32)}
    (tmp_path / "t").write_bytes(content(tensors))
    found = library.load_file(tmp_path / "t")
    assert all(np.array_equal(found[name], tensors[name]) for name in ("a", "b"))
    library.save_file(tensors, tmp_path / "theirs", metadata={"format": "np"})
    ours = read_tensors(tmp_path / "theirs")
    assert all(np.array_equal(ours[name], tensors[name]) for name in ("a", "b"))


@given(TENSORS)
def test_values_begin_at_a_round_address(tensors: Tensors) -> None:
    assert len(tensor_header({name: TensorEntry(array.dtype, array.shape) for name, array in tensors.items()})) % ALIGNMENT == 0


def test_tensors_are_mapped_and_not_copied(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(content({"a": np.zeros(4, np.float32)}))
    (array,) = read_tensors(tmp_path / "t").values()
    assert not array.flags.writeable
    assert not array.flags.owndata


@given(st.binary(max_size=200))
def test_bytes_that_are_no_such_file_are_told_in_one_line(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights"
        path.write_bytes(data)
        try:
            assert read_tensors(path) == {}
        except PackageError as error:
            assert str(path) in error.message
            assert "\n" not in error.message


@pytest.mark.parametrize(
    "entry",
    [
        '{"dtype":"F32","shape":[4],"data_offsets":[0,99]}',
        '{"dtype":"F32","shape":[4],"data_offsets":[-16,0]}',
        '{"dtype":"F32","shape":[5],"data_offsets":[0,16]}',
        '{"dtype":"F32","shape":[4],"data_offsets":[0,15]}',
        '{"dtype":"I8","shape":[16],"data_offsets":[0,16]}',
        '{"shape":[4],"data_offsets":[0,16]}',
        '{"dtype":"F32","shape":4,"data_offsets":[0,16]}',
        '{"dtype":"F32","shape":[4],"data_offsets":[0]}',
        "7",
    ],
)
def test_a_header_that_does_not_fit_its_values_is_told_in_one_line(tmp_path: Path, entry: str) -> None:
    text = f'{{"a":{entry}}}'.encode()
    (tmp_path / "t").write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    with pytest.raises(PackageError, match="safetensors layout") as refused:
        read_tensors(tmp_path / "t")
    assert "\n" not in refused.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="nowhere"):
        read_tensors(tmp_path / "nowhere")
