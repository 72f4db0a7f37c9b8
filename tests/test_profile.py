import json

import numpy as np
import pytest
from click.testing import CliRunner

from gradloc.cli.main import cli
from gradloc.errors import GradlocError, RecipeError
from gradloc.experiments.recipes import load_recipe
from gradloc.localization.profile import ALSO, GradientProfile
from gradloc.models.unit_info import UnitInfo


def profile(**fields):
    ones = np.ones((2, 3))
    units = tuple(UnitInfo(name, "mlp", block, 4) for block, name in enumerate("abc"))
    return GradientProfile(units=units, probe_norms=ones, **fields)


def test_interference_matrix_by_hand():
    aligned = np.array([[1.0, 2.0, 0.0], [3.0, -1.0, 2.0]])
    p = profile(reference_alignment=aligned)
    expected = [[5.0, -0.5, 3.0], [-0.5, 2.5, -1.0], [3.0, -1.0, 2.0]]
    np.testing.assert_allclose(p.interference_matrix, expected)
    np.testing.assert_allclose(np.diag(p.interference_matrix), p.interference)
    # What a step in all three disturbs is the mean square of the summed products.
    assert p.interference_matrix.sum() == pytest.approx((aligned.sum(1) ** 2).mean())


def test_a_file_from_before_the_extras_still_loads(tmp_path):
    path = profile(sign_agreement=np.array([0.4, 0.5, 0.6])).save(tmp_path / "profile.json")
    data = json.loads(path.read_text())
    for fields in ALSO.values():
        for name in fields:
            del data[name]
    path.write_text(json.dumps(data))
    old = GradientProfile.load(path)
    np.testing.assert_array_equal(old.probe_norms, np.ones((2, 3)))
    assert old.sign_agreement is None and old.spectrum_snr is None


@pytest.mark.parametrize(
    ("name", "measured", "message"),
    [
        ("reference_norms", {}, r"no reference_norms.*without reference text.*--reference FILE"),
        ("probe_norm_of_mean", {}, r"without reference text.*--reference FILE"),
        ("probe_weight_alignment", {}, r"without 'weights'.*measure.also.*--also weights"),
        ("reference_weight_alignment", {}, r"without reference text"),
        (
            "reference_weight_alignment",
            {"reference_norms": np.ones((2, 3))},
            r"without 'weights'.*also=\('weights',\)",
        ),
        ("sign_agreement", {}, r"--also signs"),
        ("spectrum_snr", {}, r"--also spectrum"),
    ],
)
def test_what_is_missing_is_named_with_its_cure(name, measured, message):
    with pytest.raises(GradlocError, match=message):
        profile(**measured).need(name)


def test_every_extra_is_a_field():
    assert {name for fields in ALSO.values() for name in fields} <= set(
        GradientProfile.__dataclass_fields__
    )


def test_the_command_measures_on_request(tiny_checkpoint, tmp_path):
    (tmp_path / "probes.jsonl").write_text(
        '{"group": "new", "prompt": "The river is the", "targets": ["Nile"]}\n'
    )
    (tmp_path / "text.txt").write_text("The sea is wide.\n\nRain falls on the hills.\n")
    out = tmp_path / "profile.json"
    arguments = ["measure", str(tiny_checkpoint), "--probes", str(tmp_path / "probes.jsonl")]
    arguments += ["--reference", str(tmp_path / "text.txt"), "--out", str(out)]
    result = CliRunner().invoke(cli, [*arguments, "--also", "spectrum", "--also", "weights"])
    assert result.exit_code == 0, result.output
    p = GradientProfile.load(out)
    assert p.spectrum_snr is not None and p.probe_weight_alignment.shape == p.probe_norms.shape
    assert p.sign_agreement is None
    assert CliRunner().invoke(cli, [*arguments, "--also", "sign", "--force"]).exit_code == 2


def test_a_recipe_may_ask_for_what_only_some_policies_need(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: x\nmeasure: {also: [signs, weights]}\n"
        "arms: {a: {policy: sign_agreement, options: {only: mlp, level: parameter}}}\n"
    )
    assert load_recipe(path).measure.also == ("signs", "weights")
    path.write_text("name: x\nmeasure: {also: [sign]}\n")
    with pytest.raises(RecipeError, match="measure.also"):
        load_recipe(path)
