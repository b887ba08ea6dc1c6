"""Picture files as frames."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def read_picture(path: Path) -> Frame:
    """A picture file as a frame, turned the way its EXIF orientation says.

    Raises:
        VlmError: BAD_IMAGE if there is no such file, it is no picture, or it is damaged.
    """
    return _read(path, ImageOps.exif_transpose)


def read_stored_picture(path: Path) -> Frame:
    """As `read_picture`, but with the pixels as they are stored, whatever the orientation tag says."""
    return _read(path, lambda image: image)


def read_picture_bytes(data: bytes, name: str) -> Frame:
    """As `read_picture`, from a picture file's content; `name` stands for it in errors."""
    return _decode(io.BytesIO(data), name, ImageOps.exif_transpose)


def _read(path: Path, turn: Callable[[Image.Image], Image.Image]) -> Frame:
    return _decode(path, str(path), turn)


def _decode(file: Path | IO[bytes], name: str, turn: Callable[[Image.Image], Image.Image]) -> Frame:
    try:
        with Image.open(file) as image:
            return Frame(np.asarray(turn(image).convert("RGB")))
    except UnidentifiedImageError as error:
        raise VlmError(ErrorCode.BAD_IMAGE, f"{name}: not a picture that can be read") from error
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise VlmError(ErrorCode.BAD_IMAGE, f"{name}: {error.strerror}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VlmError(ErrorCode.BAD_IMAGE, f"{name}: cannot be read: {error}") from error


def picture_files(path: Path) -> list[Path]:
    """`path` itself, or for a folder the pictures in it in the order of their names.

    Raises:
        VlmError: BAD_IMAGE if the folder holds none.
    """
    if not path.is_dir():
        return [path]
    found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
    if not found:
        raise VlmError(ErrorCode.BAD_IMAGE, f"{path}: no pictures in this folder")
    return found
