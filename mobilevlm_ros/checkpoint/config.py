"""The numbers that describe a MobileVLM checkpoint, read from its `config.json` and its vision tower's.

Knows the released key names and which values this package supports; knows nothing of weights, of torch and of ONNX.
Keys that the released files carry but MobileVLM never reads (`n_head`, `n_query_groups`, ...) are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any

from mobilevlm_ros.checkpoint.errors import CheckpointError
from mobilevlm_ros.checkpoint.json_keys import JsonKeys, read_json

CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
IMAGE_TOKEN = -200
"""The id that stands for the picture in a prompt's token ids (the official code's index)."""

_CLIP_L_336 = "clip-vit-large-patch14-336"
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_POOLED_GRID = 12


class ProjectorKind(str, Enum):
    """The projectors between vision tower and language model; the values are those of `mm_projector_type`."""

    LDP = "ldpnet"
    LDP_V2 = "ldpnetv2"


@dataclass(frozen=True)
class VisionConfig:
    """A CLIP vision tower: a ViT over `image_size` square pictures in patches of `patch_size` pixels.

    `image_mean` and `image_std` are those of the tower's preprocessor, for RGB in 0..1.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    image_mean: tuple[float, float, float] = _CLIP_MEAN
    image_std: tuple[float, float, float] = _CLIP_STD

    @property
    def grid(self) -> int:
        """Patches along one side of the picture."""
        return self.image_size // self.patch_size

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def clip_vit_l_336(cls) -> VisionConfig:
        """The tower of every released MobileVLM: OpenAI's CLIP ViT-L/14 at 336 px (its published config.json)."""
        return cls(1024, 4096, 24, 16, 336, 14)

    @classmethod
    def read(cls, folder: Path) -> VisionConfig:
        """Reads `config.json` (of a vision tower or of a whole CLIP) and, if there is one, `preprocessor_config.json`.

        Raises CheckpointError naming file and key.
        """
        path = folder / CONFIG_FILE
        data = read_json(path)
        nested = data.get("vision_config")
        keys = JsonKeys(nested if isinstance(nested, dict) else data, str(path))
        prepared = folder / PREPROCESSOR_FILE
        preprocessor = JsonKeys(read_json(prepared) if prepared.is_file() else {}, str(prepared))
        keys.must_be("num_channels", 3, 3)
        keys.must_be("hidden_act", "quick_gelu", "quick_gelu", "gelu")
        config = cls(
            hidden_size=keys.integer("hidden_size"),
            intermediate_size=keys.integer("intermediate_size"),
            num_hidden_layers=keys.integer("num_hidden_layers"),
            num_attention_heads=keys.integer("num_attention_heads"),
            image_size=keys.integer("image_size"),
            patch_size=keys.integer("patch_size"),
            hidden_act=keys.text("hidden_act", "quick_gelu"),
            layer_norm_eps=keys.number("layer_norm_eps", 1e-5),
            image_mean=preprocessor.triple("image_mean", _CLIP_MEAN),
            image_std=preprocessor.triple("image_std", _CLIP_STD),
        )
        if min(config.image_std) <= 0:
            raise preprocessor.wrong("image_std", list(config.image_std), "three positive numbers")
        if config.hidden_size % config.num_attention_heads:
            raise keys.wrong("num_attention_heads", config.num_attention_heads, f"a divisor of {config.hidden_size}")
        if config.image_size % config.patch_size:
            raise keys.wrong("image_size", config.image_size, f"a multiple of patch_size {config.patch_size}")
        return config

    def to_json(self) -> dict[str, Any]:
        """The tower's `config.json` in the form `transformers` writes."""
        values = asdict(self)
        del values["image_mean"], values["image_std"]
        return {"architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model", "num_channels": 3, **values}

    def preprocessor_json(self) -> dict[str, Any]:
        """The tower's `preprocessor_config.json` in the form `transformers` writes (bicubic = 3)."""
        return {
            "crop_size": {"height": self.image_size, "width": self.image_size},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": list(self.image_mean),
            "image_processor_type": "CLIPImageProcessor",
            "image_std": list(self.image_std),
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"shortest_edge": self.image_size},
        }


@dataclass(frozen=True)
class MobileVlmConfig:
    """A MobileVLM checkpoint: a Llama of `hidden_size`, a projector and the vision tower `vision`.

    `mm_vision_tower` is kept as the checkpoint names it. All sizes are counts; eps and theta are as in Llama.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    projector: ProjectorKind
    vision: VisionConfig
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = False
    bos_token_id: int = 1
    eos_token_id: int = 2
    pad_token_id: int = 0
    mm_vision_select_layer: int = -2
    mm_vision_tower: str = "openai/" + _CLIP_L_336

    @property
    def vision_layers_used(self) -> int:
        """How many of the tower's layers a feature passes: `hidden_states[k]` is what k layers made of the embeddings."""
        select = self.mm_vision_select_layer
        return select if select >= 0 else self.vision.num_hidden_layers + 1 + select

    @property
    def image_grid(self) -> int:
        """Visual tokens along one side of the picture, after the projector."""
        if self.projector is ProjectorKind.LDP_V2:
            return _POOLED_GRID
        return (self.vision.grid - 1) // 2 + 1

    @property
    def image_tokens(self) -> int:
        """Visual tokens a picture takes in the prompt (144 in every released checkpoint)."""
        return self.image_grid**2

    @classmethod
    def read(cls, folder: str | Path, vision_tower: str | Path | None = None) -> MobileVlmConfig:
        """Reads a checkpoint folder in the released layout.

        `vision_tower` is a folder with the tower's own config, for a checkpoint that names a tower known neither by a
        folder of its own nor as CLIP ViT-L/14-336. Raises CheckpointError with one line.
        """
        root = Path(folder)
        path = root / CONFIG_FILE
        data = read_json(path)
        keys = JsonKeys(data, str(path))
        name = keys.text("mm_vision_tower")
        inside = tower_folder(root, name)
        if vision_tower is not None:
            vision = VisionConfig.read(Path(vision_tower))
        elif inside is not None:
            vision = VisionConfig.read(inside)
        elif PurePosixPath(name).name == _CLIP_L_336:
            vision = VisionConfig.clip_vit_l_336()
        else:
            raise CheckpointError(f"{path}: the vision tower '{name}' is neither {_CLIP_L_336} nor a folder in the checkpoint")
        return cls.from_json(data, vision, str(path))

    @classmethod
    def from_json(cls, data: Mapping[str, Any], vision: VisionConfig, where: str = CONFIG_FILE) -> MobileVlmConfig:
        """Checks and takes over the keys of a `config.json`; `where` names it in errors (CheckpointError)."""
        keys = JsonKeys(data, where)
        _check_supported(keys)
        kind = keys.text("mm_projector_type")
        if kind not in [known.value for known in ProjectorKind]:
            known_kinds = ", ".join(known.value for known in ProjectorKind)
            raise CheckpointError(f"{where}: unknown projector '{kind}' in 'mm_projector_type' (known: {known_kinds})")
        hidden, heads = keys.integer("hidden_size"), keys.integer("num_attention_heads")
        config = cls(
            vocab_size=keys.integer("vocab_size"),
            hidden_size=hidden,
            intermediate_size=keys.integer("intermediate_size"),
            num_hidden_layers=keys.integer("num_hidden_layers"),
            num_attention_heads=heads,
            num_key_value_heads=keys.integer("num_key_value_heads", heads),
            head_dim=keys.integer("head_dim", hidden // heads or 1),
            max_position_embeddings=keys.integer("max_position_embeddings", 2048),
            projector=ProjectorKind(kind),
            vision=vision,
            rms_norm_eps=keys.number("rms_norm_eps", 1e-6),
            rope_theta=_rope_theta(keys, where),
            tie_word_embeddings=keys.flag("tie_word_embeddings", False),
            bos_token_id=keys.integer("bos_token_id", 1, least=0),
            eos_token_id=keys.integer("eos_token_id", 2, least=0),
            pad_token_id=keys.integer("pad_token_id", 0, least=0),
            mm_vision_select_layer=keys.get("mm_vision_select_layer"),
            mm_vision_tower=keys.text("mm_vision_tower"),
        )
        config._check_sizes(keys)
        return config

    def _check_sizes(self, keys: JsonKeys) -> None:
        select = self.mm_vision_select_layer
        layers = self.vision.num_hidden_layers
        if isinstance(select, bool) or not isinstance(select, int) or not -layers - 1 <= select <= layers:
            raise keys.wrong("mm_vision_select_layer", select, f"a whole number from {-layers - 1} to {layers}")
        if keys.integer("mm_hidden_size") != self.vision.hidden_size:
            raise keys.wrong("mm_hidden_size", keys.get("mm_hidden_size"), f"the tower's {self.vision.hidden_size}")
        if self.hidden_size % self.num_attention_heads:
            raise keys.wrong("num_attention_heads", self.num_attention_heads, f"a divisor of hidden_size {self.hidden_size}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise keys.wrong("num_key_value_heads", self.num_key_value_heads, f"a divisor of {self.num_attention_heads}")
        if self.head_dim % 2:
            raise keys.wrong("head_dim", self.head_dim, "an even number (rotary embedding turns pairs)")

    def to_json(self) -> dict[str, Any]:
        """The checkpoint's `config.json` with the released keys."""
        return {
            "architectures": ["MobileLlamaForCausalLM"],
            "model_type": "mobilevlm",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": None,
            "tie_word_embeddings": self.tie_word_embeddings,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
            "mm_hidden_size": self.vision.hidden_size,
            "mm_projector_type": self.projector.value,
            "mm_vision_tower": self.mm_vision_tower,
            "vision_tower_type": "clip",
            "mm_vision_select_layer": self.mm_vision_select_layer,
            "mm_vision_select_feature": "patch",
            "image_aspect_ratio": "pad",
            "image_grid_pinpoints": None,
            "mm_use_im_start_end": False,
            "mm_use_im_patch_token": False,
            "use_mm_proj": True,
        }


def tower_folder(root: Path, name: str) -> Path | None:
    """The folder inside the checkpoint that `mm_vision_tower` names, or None where it names something else."""
    pure = PurePosixPath(name)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts:
        return None
    folder = root / pure
    return folder if (folder / CONFIG_FILE).is_file() else None


def _check_supported(keys: JsonKeys) -> None:
    """Refuses values that would need other code than MobileVLM's; absent keys mean the released value."""
    keys.must_be("model_type", "mobilevlm", "mobilevlm", "mobilellama")
    keys.must_be("hidden_act", "silu", "silu")
    keys.must_be("attention_bias", False, False)
    keys.must_be("mlp_bias", False, False)
    keys.must_be("image_aspect_ratio", "pad", "pad")
    keys.must_be("mm_vision_select_feature", "patch", "patch")
    keys.must_be("vision_tower_type", "clip", "clip")
    keys.must_be("mm_use_im_start_end", False, False)
    keys.must_be("mm_use_im_patch_token", False, False)
    scaling = keys.get("rope_scaling", None)
    if scaling is not None and (not isinstance(scaling, dict) or scaling.get("rope_type", scaling.get("type")) != "default"):
        raise keys.wrong("rope_scaling", scaling, "null")


def _rope_theta(keys: JsonKeys, where: str) -> float:
    """`rope_theta`, or where newer `transformers` put it: inside `rope_parameters`."""
    nested = keys.get("rope_parameters", {})
    if not isinstance(nested, dict):
        raise keys.wrong("rope_parameters", nested, "an object")
    if nested.get("rope_type", "default") != "default":
        raise keys.wrong("rope_parameters", nested, "rope_type 'default'")
    return keys.number("rope_theta", JsonKeys(nested, where).number("rope_theta", 10000.0))
