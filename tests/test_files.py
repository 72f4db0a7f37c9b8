"""Text, JSON and records: what is damaged is told with its file and place, never as a traceback."""

import copy
import gzip
import json
import random

import numpy as np
import pytest

from gradloc.data.corpora.texts import read_texts
from gradloc.errors import FileError, GradlocError
from gradloc.evaluation.results import ArmResult, EvalResult, MetricValue
from gradloc.evaluation.score_record import CheckpointScores
from gradloc.localization.layer_selection import select_layers
from gradloc.localization.plan import LayerPlan
from gradloc.localization.profile import GradientProfile
from gradloc.models.unit_info import UnitInfo
from gradloc.utils.io import parse_json, read_json, read_lines, read_text, write_text

PACKED = gzip.compress(b"some text\n" * 50, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.txt", None, "no such file; expected a thing"),
        ("latin1.txt", b"Z\xfcrich", "is not UTF-8 text"),
        ("utf16.txt", "Oslo".encode("utf-16"), "is not UTF-8 text"),
        ("utf16.txt", "Oslo".encode("utf-16-le"), ":1: holds a null byte"),
        ("null.txt", b"a\nb\0c\n", ":2: holds a null byte"),
        ("plain.txt.gz", b"no gzip", "cannot be read as a thing: Not a gzipped file"),
        ("cut.txt.gz", PACKED[:-12], "cannot be read as a thing: Compressed file ended"),
        ("flip.txt.gz", PACKED[:12] + b"\xff\xff" + PACKED[14:], "cannot be read as a thing"),
        ("sum.txt.gz", PACKED[:-8] + b"\0" * 8, "cannot be read as a thing: CRC check failed"),
    ],
)
def test_damaged_text_is_one_clear_error(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for read in (read_text, lambda *given: list(read_lines(*given))):
        with pytest.raises(FileError, match=message) as error:
            read(path, "thing")
        assert str(error.value).startswith(str(path))


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(FileError, match="is a folder; expected a thing"):
        read_text(tmp_path, "thing")


def test_byte_order_marks_and_ends_of_lines_are_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffÅs\r\n\r\nOslo".encode())
    assert read_text(tmp_path / "a.txt") == "Ås\n\nOslo"
    assert list(read_lines(tmp_path / "a.txt")) == [(1, "Ås"), (3, "Oslo")]
    assert list(read_texts(tmp_path / "a.txt")) == ["Ås", "Oslo"]


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, '"half \\ud800"', "{", ""])
def test_no_json_says_why(text):
    with pytest.raises(ValueError, match=r"nested|digits|half of a surrogate|Expecting"):
        parse_json(text)


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e999", str(2**63)])
def test_numbers_of_a_record_are_finite(tmp_path, text):
    parse_json(text)
    (tmp_path / "a.json").write_text(f"[{text}]")
    with pytest.raises(FileError, match=r"a\.json: cannot be read as a thing: .* is no number"):
        read_json(tmp_path / "a.json", "thing")


def test_text_that_no_file_takes_is_refused_when_it_is_written(tmp_path):
    with pytest.raises(FileError, match="surrogate"):
        write_text(tmp_path / "a.txt", "half \ud800")
    assert not list(tmp_path.iterdir())


# ---- records -------------------------------------------------------------------------------------

UNITS = (
    UnitInfo("embed", "embedding", None, 64),
    UnitInfo("layers.0.attn", "attention", 0, 16, ("layers.0.attn",)),
    UnitInfo("layers.0.mlp", "mlp", 0, 32, ("layers.0.mlp",)),
)
SHAPE = {"n_blocks": 1, "hidden_size": 4, "vocab_size": 16, "kv_size": 4, "query_size": 4}
GENERATOR = np.random.default_rng(0)
PROFILE = GradientProfile(
    UNITS,
    *GENERATOR.random((4, 4, 3)) + 0.5,
    probe_norm_of_mean=np.ones(3),
    reference_norm_of_mean=np.ones(3),
    shape={**SHAPE, "ffn_size": 8, "n_heads": 1, "tied": 1, "n_parameters": 112},
    settings={"seed": 0},
)
VALUE = MetricValue(1.5, 1.0, 2.0, 4, "nats", True)
ARM = ArmResult(
    "runs/a",
    {"new_nll": VALUE},
    {"general_text": VALUE},
    {"new_nll": VALUE},
    curve={"step": [0, 1], "loss": [None, 2.0]},
)
EXAMPLE = {"prompt": "It is", "target": "Oslo", "old_target": "", "group": "new", "answers": {}}
RECORDS = [
    PROFILE,
    select_layers(PROFILE),
    EvalResult(
        "mine", "base", {"new_nll": VALUE}, {"a": ARM}, {"texts": 3}, {}, (EXAMPLE,), ("a",)
    ),
    CheckpointScores("base", ("a", "b"), {"nll": [1.0, None]}, {"general": {"nats": [1.0]}}, {}),
]
KINDS = [type(record).__name__ for record in RECORDS]


@pytest.mark.parametrize("record", RECORDS, ids=KINDS)
def test_records_survive_their_file(tmp_path, record):
    path = record.save(tmp_path / "a.json")
    data = json.loads(path.read_text())
    assert (data["kind"], data["version"]) == (record.KIND, record.VERSION)
    assert type(record).load(path).to_dict() == data


@pytest.mark.parametrize("record", RECORDS, ids=KINDS)
def test_files_of_gradloc_0_1_load(record):
    data = record.to_dict()
    data["format"] = data.pop("version")
    assert type(record).from_dict(data).to_dict() == record.to_dict()


@pytest.mark.parametrize("record", RECORDS, ids=KINDS)
def test_what_is_wrong_with_a_record_is_told_with_its_key(tmp_path, record):
    def refused(**change):
        path = write_text(tmp_path / "a.json", json.dumps({**record.to_dict(), **change}))
        with pytest.raises(GradlocError) as error:
            type(record).load(path)
        assert str(error.value).startswith(str(path))
        return str(error.value)

    assert "'other'" in refused(kind="other")
    assert "written by a newer gradloc" in refused(version=99)
    assert "zzz: unknown key; if a newer gradloc wrote this file" in refused(zzz=1)
    assert refused(zzz=1, yyy=2).count("\n") == 2
    assert "version 'x'" in refused(version="x")


def test_shapes_and_names_belong_together():
    def refused(record, **change):
        with pytest.raises(GradlocError) as error:
            type(record).from_dict({**record.to_dict(), **change})
        return str(error.value)

    data = PROFILE.to_dict()
    assert "probe_norms: expected shape (4, 2), found (4, 3)" in refused(
        PROFILE, units=data["units"][1:]
    )
    assert "its rows have different lengths" in refused(PROFILE, probe_norms=[[1.0], [1.0, 2.0]])
    assert "shape.kv_size: is missing" in refused(
        PROFILE, shape={"hidden_size": 4, "vocab_size": 2}
    )
    assert "reference_arms: there is no arm 'b'" in refused(RECORDS[2], reference_arms=["b"])
    assert "scale.embed: is missing" in refused(RECORDS[1], scale={"layers.0.mlp": 1.0})
    assert "columns.nll: has 1 entries for 2 probes" in refused(RECORDS[3], columns={"nll": [1.0]})


def test_a_profile_with_measurements_that_are_made_no_longer_loads():
    data = {**PROFILE.to_dict(), "spectrum_snr": None, "sign_agreement": [0.5, 0.5, 0.5]}
    np.testing.assert_array_equal(GradientProfile.from_dict(data).rgn, PROFILE.rgn)


def test_a_profile_by_hand_needs_no_derived_values():
    data = {name: value for name, value in PROFILE.to_dict().items() if name != "derived"}
    np.testing.assert_array_equal(GradientProfile.from_dict(data).rgn, PROFILE.rgn)


N_MUTATIONS = 400
BAD_VALUES = (None, -1, 0, 1.5, "x", "", True, [], {}, [[]], [None], {"x": 1}, 2**62)


def _places(value, path=()):
    """Every key and index of nested JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from _places(item, (*path, key))


def _mutations(data, n):
    """The data with one place changed or removed, or an entry given twice."""
    places, chance = list(_places(data)), random.Random(0)
    for _ in range(n):
        changed = copy.deepcopy(data)
        *way, last = chance.choice(places)
        parent = changed
        for key in way:
            parent = parent[key]
        change = chance.randrange(len(BAD_VALUES) + 2)
        if change < len(BAD_VALUES):
            parent[last] = copy.deepcopy(BAD_VALUES[change])
        elif change == len(BAD_VALUES) or isinstance(parent, dict):
            del parent[last]
        else:
            parent.append(parent[last])
        yield changed


@pytest.mark.slow
@pytest.mark.parametrize("record", RECORDS, ids=KINDS)
def test_no_mutation_of_a_record_gives_a_traceback(record):
    refused = 0
    for data in _mutations(record.to_dict(), N_MUTATIONS):
        try:
            found = type(record).from_dict(data)
            if isinstance(found, GradientProfile):
                found = select_layers(found)
            if isinstance(found, LayerPlan):
                assert 0 <= found.trainable_fraction <= 1 or not found.units
            found.to_dict()
        except GradlocError:
            refused += 1
    assert N_MUTATIONS / 4 < refused < N_MUTATIONS
