"""Names that users write, and import paths."""

import pytest

from gradloc.errors import GradlocError, SelectionError
from gradloc.utils.names import lookup


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "named_policies.py").write_text("def mine(profile): return profile\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_names_and_import_paths(module):
    assert lookup({"a": 1}, "a", "policy") == 1
    assert lookup({"a": 1}, "named_policies:mine", "policy")("x") == "x"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("al", "policy 'al' is unknown. Did you mean 'all'?"),
        ("zzz", "policy 'zzz' is unknown. Known: all."),
        ("named_policies:mien", "module 'named_policies' has no 'mien'. Did you mean 'mine'?"),
        ("named_policies:", "module 'named_policies' has no ''. Known: mine."),
        ("nowhere:mine", "importing 'nowhere' failed with ModuleNotFoundError: No module named"),
        ("broken:mine", "importing 'broken' failed with ZeroDivisionError"),
        (":mine", "importing '' failed with ValueError"),
    ],
)
def test_what_leads_nowhere_is_one_error(module, name, expected):
    with pytest.raises(SelectionError) as error:
        lookup({"all": 1}, name, "policy", SelectionError)
    assert expected in str(error.value)
    assert isinstance(error.value, GradlocError)
