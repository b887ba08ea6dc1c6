"""The benchmarks' own file formats, one module each."""

from __future__ import annotations

from collections.abc import Callable

from mobilevlm_ros.evaluate.dataset import Benchmark
from mobilevlm_ros.evaluate.formats.coloninst import read_coloninst
from mobilevlm_ros.evaluate.formats.files import Source
from mobilevlm_ros.evaluate.formats.gqa import read_gqa
from mobilevlm_ros.evaluate.formats.mme import read_mme
from mobilevlm_ros.evaluate.formats.pope import read_pope
from mobilevlm_ros.evaluate.formats.refcoco import read_refcoco
from mobilevlm_ros.evaluate.formats.scienceqa import read_scienceqa
from mobilevlm_ros.evaluate.formats.textvqa import read_textvqa

Reader = Callable[[Source], Benchmark]
"""Reads a dataset's files. Raises DatasetError if one is missing, damaged or of another format."""


FORMATS: dict[str, Reader] = {
    "coloninst": read_coloninst,
    "refcoco": read_refcoco,
    "gqa": read_gqa,
    "pope": read_pope,
    "textvqa": read_textvqa,
    "scienceqa": read_scienceqa,
    "mme": read_mme,
}
"""Every format by the name that the command line has for it."""

__all__ = ["FORMATS", "Reader", "Source"]
