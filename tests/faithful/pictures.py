"""The official way from a picture to the tower's input, written from its definition with Pillow and NumPy alone."""

from __future__ import annotations

import numpy as np
from PIL import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

Triple = tuple[float, float, float]


def square(picture: Image.Image, mean: Triple = CLIP_MEAN) -> Image.Image:
    """The picture in the middle of a square of the mean colour, the odd row or column of padding on the right or below."""
    width, height = picture.size
    side = max(width, height)
    colour = tuple(int(value * 255) for value in mean)
    canvas = Image.new("RGB", (side, side), colour)
    canvas.paste(picture, ((side - width) // 2, (side - height) // 2))
    return canvas


def official_pixels(picture: Image.Image, size: int, mean: Triple = CLIP_MEAN, std: Triple = CLIP_STD) -> np.ndarray:
    """float32 [1, 3, size, size]: squared, resized, cropped, scaled to 0..1 and normalised."""
    resized = square(picture, mean).resize((size, size), Image.Resampling.BICUBIC)  # the short edge, which both edges are
    edge = (resized.width - size) // 2
    cropped = resized.crop((edge, edge, edge + size, edge + size))
    unit = np.asarray(cropped, np.float32) / np.float32(255)
    return ((unit - np.array(mean, np.float32)) / np.array(std, np.float32)).transpose(2, 0, 1)[None]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Blocks of random colours with noise on them: edges at every scale."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (-(-height // 8), -(-width // 8), 3))
    blocks = np.kron(coarse, np.ones((8, 8, 1), int))[:height, :width]
    return Image.fromarray(np.clip(blocks + random.integers(-40, 41, blocks.shape), 0, 255).astype(np.uint8))
