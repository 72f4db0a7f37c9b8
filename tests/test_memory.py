import pytest
import torch

import gradloc.utils.memory
from gradloc.utils.memory import PeakMemory


@pytest.mark.slow
@pytest.mark.parametrize("exact", [True, False])
def test_a_passing_peak_is_seen_and_an_earlier_one_is_not(exact, monkeypatch):
    if not exact:
        monkeypatch.setattr(gradloc.utils.memory, "_reset_high_water_mark", lambda: False)
    with PeakMemory() as before:
        pass
    big = torch.ones(64 * 2**20 // 4)
    del big
    with PeakMemory() as small:
        torch.ones(2**20 // 4).sum()
    with PeakMemory() as large:
        for _ in range(20):
            torch.ones(256 * 2**20 // 4).sum()
    assert small.mib - before.mib < 40
    assert large.mib - small.mib > 150
