"""Rounding to 4 bits with error compensation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.export.gptq import compensated
from mobilevlm_ros.export.linear_weights import LinearWeight, to_blocks


def correlated(rows: int, columns: int) -> Tensor:
    """Inputs that depend on one another, as a network's do."""
    generator = torch.manual_seed(0)
    return torch.randn(rows, columns // 2, generator=generator) @ torch.randn(columns // 2, columns, generator=generator)


def change(weight: LinearWeight, matrix: Tensor, inputs: Tensor) -> float:
    return float((inputs @ (torch.from_numpy(weight.values()) - matrix).T).norm() / (inputs @ matrix.T).norm())


@pytest.mark.parametrize("columns", [128, 192, 384])
def test_it_changes_outputs_clearly_less_than_rounding_to_the_nearest(columns: int) -> None:
    inputs = correlated(2000, columns)
    matrix = torch.randn(64, columns, generator=torch.manual_seed(1)) * 0.05
    weight = compensated(matrix, inputs.T @ inputs)
    assert change(weight, matrix, inputs) < 0.75 * change(to_blocks(matrix.numpy(), 4), matrix, inputs)
    assert weight.values().shape == matrix.shape


def test_the_matrix_and_the_moments_stay_as_they_are_and_the_result_repeats() -> None:
    inputs, matrix = correlated(500, 128), torch.randn(16, 128, generator=torch.manual_seed(2))
    moments = inputs.T @ inputs
    before = matrix.clone(), moments.clone()
    first, second = compensated(matrix, moments), compensated(matrix, moments)
    assert torch.equal(matrix, before[0]) and torch.equal(moments, before[1])
    np.testing.assert_array_equal(first.packed, second.packed)
    np.testing.assert_array_equal(first.scales, second.scales)


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    inputs = correlated(500, 128)
    inputs[:, 10:20] = 0
    matrix = torch.randn(16, 128, generator=torch.manual_seed(3))
    assert change(compensated(matrix, inputs.T @ inputs), matrix, inputs) < 0.1


def test_moments_that_are_not_finite_are_one_line() -> None:
    with pytest.raises(ExportError, match="not finite"):
        compensated(torch.ones(4, 128), torch.full((128, 128), torch.nan))


def test_the_library_leaves_nothing_in_the_current_folder_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    compensated(torch.randn(4, 128), torch.eye(128))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
