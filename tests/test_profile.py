import numpy as np
import pytest

from gradloc.errors import GradlocError
from gradloc.localization.profile import GradientProfile
from gradloc.models.unit_info import UnitInfo


def profile(**fields):
    ones = np.ones((2, 3))
    units = tuple(UnitInfo(name, "mlp", block, 4) for block, name in enumerate("abc"))
    return GradientProfile(units=units, probe_norms=ones, **fields)


@pytest.mark.parametrize(
    ("name", "measured", "message"),
    [
        ("reference_norms", {}, r"no reference_norms.*without reference text.*--reference FILE"),
        ("probe_norm_of_mean", {}, r"without reference text.*--reference FILE"),
    ],
)
def test_what_is_missing_is_named_with_its_cure(name, measured, message):
    with pytest.raises(GradlocError, match=message):
        profile(**measured).need(name)
