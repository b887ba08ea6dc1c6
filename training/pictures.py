"""The numbers of the picture that the nano model takes: its side, patches, padding and normalisation."""

from __future__ import annotations

import numpy as np

SIDE, PATCH, GRID = 168, 14, 12
PAD_COLOR = (122, 116, 104)
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
