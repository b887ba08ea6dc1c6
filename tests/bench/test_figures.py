"""The figures that the node's benchmark is told in, and the clocks that it reads."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import percentile, slope
from bench.processor_time import ThreadClock, anonymous_bytes

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)


@given(VALUES, st.floats(0, 100))
def test_a_percentile_is_a_value_that_as_many_do_not_exceed(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share / 100 * len(values) - 1e-9


@given(st.floats(-100, 100), st.integers(10, 40), st.integers(0, 2))
def test_two_odd_samples_do_not_bend_the_slope(rate: float, samples: int, odd: int) -> None:
    times = [float(number) for number in range(samples)]
    values = [5.0 + rate * moment for moment in times]
    values[samples // 2 : samples // 2 + odd] = [1e4] * odd
    assert slope(times, values) == pytest.approx(rate, abs=1e-6)


def test_a_thread_that_works_is_counted_and_its_memory_too() -> None:
    clock = ThreadClock(os.getpid())
    before, memory = clock.read(), anonymous_bytes(os.getpid())
    kept: list[np.ndarray] = []

    def work() -> None:
        kept.append(np.ones(64 << 20, np.uint8))
        end = time.thread_time() + 0.2
        while time.thread_time() < end:
            pass

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        thread.join(0.02)
        after = clock.read()
    assert after.own_ms - before.own_ms > 100
    assert anonymous_bytes(os.getpid()) - memory > 50 << 20


def test_a_process_that_is_not_there_is_an_error() -> None:
    gone = 2**22 + 1  # larger than the kernel's largest id
    with pytest.raises(OSError):
        ThreadClock(gone).read()
    with pytest.raises(OSError):
        anonymous_bytes(gone)
