import pytest

from gradloc.errors import GradlocError
from gradloc.evaluation.score_log import CHUNK, ScoreLog


class Counter:
    """Squares numbers, and knows which it was asked for."""

    def __init__(self, fails_at=None):
        self.asked, self.fails_at = [], fails_at

    def __call__(self, items):
        if self.fails_at in items:
            raise RuntimeError("killed")
        self.asked += list(items)
        return [item**2 for item in items]


def test_only_new_items_are_computed(tmp_path):
    path, first, second = tmp_path / "a" / "scores.jsonl", Counter(), Counter()
    assert ScoreLog(path).fill("square", [1, 2, 3], first) == [1, 4, 9]
    assert ScoreLog(path).fill("square", [3, 4, 1], second) == [9, 16, 1]
    assert second.asked == [4]
    # The same item, asked something else, is another entry.
    other = Counter()
    ScoreLog(path).fill("cube", [3], other)
    assert other.asked == [3]


def test_an_interrupted_computation_continues(tmp_path):
    items, path = list(range(CHUNK + 10)), tmp_path / "scores.jsonl"
    with pytest.raises(RuntimeError):
        ScoreLog(path).fill("square", items, Counter(fails_at=CHUNK + 5))
    again = Counter()
    assert ScoreLog(path).fill("square", items, again) == [item**2 for item in items]
    assert again.asked == items[CHUNK:]


def test_a_line_that_a_kill_cut_short_is_computed_again(tmp_path):
    path = tmp_path / "scores.jsonl"
    ScoreLog(path).fill("square", [1, 2], Counter())
    path.write_text(path.read_text()[:-6])
    again = Counter()
    assert ScoreLog(path).fill("square", [1, 2], again) == [1, 4]
    assert again.asked == [2]
    # What was written after the torn line can be read.
    assert len(ScoreLog(path)) == 2


def test_another_file_is_no_log(tmp_path):
    (tmp_path / "scores.jsonl").write_text('["a", 1]\n5\n')
    with pytest.raises(GradlocError, match=r"scores\.jsonl:2: expected \[key, score\], found '5'"):
        ScoreLog(tmp_path / "scores.jsonl")


def test_items_that_stand_twice_are_computed_once():
    counter = Counter()
    assert ScoreLog().fill("square", [5, 5], counter) == [25, 25]
    assert counter.asked == [5]


def test_scores_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GradlocError, match="scores cannot be written"):
        ScoreLog(tmp_path / "file" / "scores.jsonl").fill("square", [1], Counter())
