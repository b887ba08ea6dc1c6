"""Reads the tensors of a checkpoint one at a time, from whatever files a release consists of.

Single or sharded `.bin` (pickles, opened with `weights_only=True` and memory-mapped) and safetensors look alike from outside: a
mapping from released tensor names to tensors. A checkpoint without a vision tower is completed from a CLIP folder. Knows files;
knows nothing of what the tensors mean beyond the tower's prefix.
"""

from __future__ import annotations

import pickle
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mobilevlm_ros.checkpoint.config import CONFIG_FILE, MobileVlmConfig, tower_folder
from mobilevlm_ros.checkpoint.errors import CheckpointError, first_line
from mobilevlm_ros.checkpoint.json_keys import read_json
from mobilevlm_ros.checkpoint.model import HEAD_NAME, VISION_PREFIX, MobileVLM, expected_shapes

_TOWER_PARTS = ("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.")
_BUFFERS = (".position_ids", ".rotary_emb.inv_freq")


class Tensors(Mapping[str, Tensor]):
    """Tensors by name, each read when it is asked for and not kept; shapes are known without reading the values.

    `where` names the source in messages.
    """

    where: str
    files: tuple[Path, ...]
    """The weight files behind the tensors, in a fixed order."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; raises KeyError for a name that is not there."""

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Raises CheckpointError in one line if a tensor is missing or misshapen."""
        missing = [name for name in expected if name not in self]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise CheckpointError(f"{self.where}: tensor {missing[0]} is missing{more}")
        for name, shape in expected.items():
            found = self.shape(name)
            if found != shape:
                raise CheckpointError(f"{self.where}: tensor {name} is {list(found)}, expected {list(shape)}")


class _BinFile(Tensors):
    """A pickled state dict; its values stay in the memory map until they are used."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self.files = (path,)
        self._tensors = _load_pickle(path)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


class _SafetensorsFile(Tensors):
    """A safetensors file, opened once and read tensor by tensor."""

    def __init__(self, path: Path) -> None:
        try:
            from safetensors import SafetensorError, safe_open
        except ModuleNotFoundError:
            raise CheckpointError(f"{path}: reading it needs the Python package safetensors") from None
        self.where = str(path)
        self.files = (path,)
        try:
            self._file = safe_open(str(path), framework="pt")
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: not readable as safetensors ({first_line(error)})") from None
        self._names = tuple(self._file.keys())
        self._known = frozenset(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(self._require(name)).get_shape())

    def __getitem__(self, name: str) -> Tensor:
        return self._file.get_tensor(self._require(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _require(self, name: str) -> str:
        if name not in self._known:
            raise KeyError(name)
        return name


class CheckpointTensors(Tensors):
    """All weights of a checkpoint folder by their released names."""

    def __init__(self, where: str, places: dict[str, tuple[Tensors, str]]) -> None:
        """`places` says for each released name which file holds it and under which name."""
        self.where = where
        self.files = tuple(sorted({path for file, _ in places.values() for path in file.files}))
        self._places = places

    @classmethod
    def open(cls, folder: str | Path, config: MobileVlmConfig, vision_tower: str | Path | None = None) -> CheckpointTensors:
        """Opens a checkpoint's weights and checks that every tensor the config asks for is there in its shape.

        `vision_tower` is a folder with a CLIP (or CLIP vision) checkpoint in the `transformers` layout, for a checkpoint that has
        no tower of its own. Raises CheckpointError in one line.
        """
        root = Path(folder)
        places = {name: (file, name) for file in open_weights(root, ("model", "pytorch_model")) for name in file}
        if not any(name.startswith(VISION_PREFIX) for name in places):
            places.update(_tower_places(root, config, vision_tower))
        if config.tie_word_embeddings:
            places.pop(HEAD_NAME, None)
        tensors = cls(str(root), places)
        tensors.check(expected_shapes(config))
        return tensors

    def unused(self, config: MobileVlmConfig) -> list[str]:
        """Names that MobileVLM with this config has no use for, without the buffers older libraries wrote."""
        expected = expected_shapes(config)
        return [name for name in self if name not in expected and not name.endswith(_BUFFERS)]

    def shape(self, name: str) -> tuple[int, ...]:
        file, stored = self._places[name]
        return file.shape(stored)

    def __getitem__(self, name: str) -> Tensor:
        """Raises CheckpointError for whole numbers, in which others store rounded weights whose scales are elsewhere."""
        file, stored = self._places[name]
        tensor = file[stored]
        if not tensor.is_floating_point():
            found = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{file.where}: tensor {name} holds {found}, wanted floating-point numbers")
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def load_model(tensors: Mapping[str, Tensor], config: MobileVlmConfig) -> MobileVLM:
    """A MobileVLM in float32 with the given weights, in evaluation mode.

    Raises CheckpointError as `MobileVLM.load_tensors` does.
    """
    model = MobileVLM(config)
    model.load_tensors(tensors)
    return model.eval()


def open_weights(root: Path, stems: tuple[str, ...]) -> list[Tensors]:
    """The weight files of a folder: `<stem>.safetensors` or `<stem>.bin`, or the shards that an index beside them lists.

    Safetensors are preferred where both exist. Raises CheckpointError if there is none or a shard is missing.
    """
    if not root.is_dir():
        raise CheckpointError(f"{root}: no such folder")
    for suffix in (".safetensors", ".bin"):
        for stem in stems:
            if (root / (stem + suffix)).is_file():
                return [_open_file(root / (stem + suffix))]
            index = root / f"{stem}{suffix}.index.json"
            if index.is_file():
                return [_open_file(root / name) for name in _shard_names(index)]
    names = " or ".join(f"{stem}.safetensors / {stem}.bin" for stem in stems)
    raise CheckpointError(f"{root}: no weights here ({names}, single or with an index)")


def _shard_names(index: Path) -> list[str]:
    weight_map: Any = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{index}: key 'weight_map' is missing or empty")
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{index}: shard '{name}' is not a plain file name")
    return names


def _open_file(path: Path) -> Tensors:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    return _SafetensorsFile(path) if path.suffix == ".safetensors" else _BinFile(path)


def _load_pickle(path: Path) -> dict[str, Tensor]:
    """A state dict from a pickle that may hold tensors and nothing that runs code."""
    try:
        try:
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            # Files from before torch 1.6 are no zip archives and cannot be mapped.
            data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path}: refused: not a pickle of tensors and nothing else") from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable as a torch file ({first_line(error)})") from None
    if not isinstance(data, dict) or not all(isinstance(name, str) and isinstance(t, Tensor) for name, t in data.items()):
        raise CheckpointError(f"{path}: not a dictionary of tensors")
    return data


def missing_tower(folder: Path) -> str | None:
    """What the config calls the vision tower that a checkpoint has neither among its weights nor in a folder; None if it has one.

    None also for a folder that is no checkpoint. Raises CheckpointError for weights that cannot be read.
    """
    if not (folder / CONFIG_FILE).is_file():
        return None
    name = read_json(folder / CONFIG_FILE).get("mm_vision_tower")
    if not isinstance(name, str):
        return None
    inside = tower_folder(folder, name)
    if inside is not None and _has_weights(inside):
        return None
    held = any(key.startswith(VISION_PREFIX) for file in open_weights(folder, ("model", "pytorch_model")) for key in file)
    return None if held else name


def _tower_places(root: Path, config: MobileVlmConfig, given: str | Path | None) -> dict[str, tuple[Tensors, str]]:
    """Where the tower's tensors are, for a checkpoint that has none among its own."""
    folder = Path(given) if given is not None else tower_folder(root, config.mm_vision_tower)
    if folder is None or (given is None and not _has_weights(folder)):
        raise CheckpointError(
            f"{root}: the checkpoint holds no vision tower; name a folder with {config.mm_vision_tower} (--vision-tower)"
        )
    places: dict[str, tuple[Tensors, str]] = {}
    for file in open_weights(folder, ("model", "pytorch_model")):
        for stored in file:
            name = stored.removeprefix("vision_model.")
            if name.startswith(_TOWER_PARTS):
                places[VISION_PREFIX + name] = (file, stored)
    return places


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))
