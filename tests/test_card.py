"""The model card: front matter that the hub reads, and a body that says what was done."""

import pytest
from huggingface_hub import ModelCard
from report_records import RECIPE, make_plan_and_profile, make_results

from gradloc.config.yaml_source import parse_yaml
from gradloc.localization.plan import LayerPlan
from gradloc.report.card import write_model_card

TRAINING = {
    "arm": "interference_ratio",
    "policy": "interference_ratio",
    "learning_rate": 2.5e-4,
    "n_steps": 36,
    "train_seconds": 70.2,
    "peak_rss_mib": 1834.5,
    "trainable_fraction": 0.197,
    "curve": {"step": [1], "loss": [3.0]},
}


def make_card(folder, **changes):
    values = {
        "base_model": "smollm2-135m-instruct",
        "recipe_text": RECIPE,
        "plan": make_plan_and_profile()[0],
        "training": TRAINING,
        "result": make_results().arms["interference_ratio"],
        **changes,
    }
    path = write_model_card(folder, **values)
    assert path == folder / "README.md"
    return ModelCard.load(path)


def test_front_matter_of_the_packaged_model(tmp_path):
    data = make_card(tmp_path).data
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert data.license == "apache-2.0"
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-generation"
    assert data.tags == ["gradloc", "continual-pretraining"]
    scores = {result.metric_type: result.metric_value for result in data.eval_results}
    assert scores["new_paraphrase_nll"] == pytest.approx(5.24 - 3.71)
    assert scores["known_facts"] == pytest.approx(0.85)


def test_front_matter_is_plain_yaml(tmp_path):
    make_card(tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    assert parse_yaml(front)["model-index"][0]["name"] == "quickstart-interference_ratio"
    assert body.lstrip().startswith("# quickstart-interference_ratio\n")


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("somebody/a-model", "somebody/a-model"),
        ("weights.gguf", None),
        ("models/weights.gguf", None),
        ("/home/me/models/base", None),
        ("./base", None),
    ],
)
def test_only_a_hub_id_is_named_as_base(tmp_path, base, expected):
    card = make_card(tmp_path, base_model=base)
    assert card.data.base_model == expected
    assert card.data.license is None
    assert "/home/me" not in str(card)


def test_a_local_folder_is_not_taken_for_a_hub_id(tmp_path, monkeypatch):
    (tmp_path / "models" / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert make_card(tmp_path, base_model="models/base").data.base_model is None


def test_methods_are_named_with_their_options(tmp_path):
    methods = {"input_projection": {}, "replay": {"ratio": 0.5, "source": "reference"}}
    body = make_card(tmp_path, training=TRAINING | {"methods": methods}).text
    assert "| Methods | input_projection; replay (ratio 0.5, source reference) |" in body


def test_body_tells_method_data_training_and_results(tmp_path):
    text = make_card(tmp_path).text
    for part in (
        "| Policy | interference_ratio |",
        "| Units trained | 10 of 62 |",
        "MLP 3–7, 24–26",
        "| Cut-off | 2023-01-01;",
        "| Peak learning rate | 2.5e-4 |",
        "| Time | 70.2 s |",
        "| Gained | new facts, paraphrased | 3.71 [3.49 to 3.93] | nats | 96 |",
        "| Lost | known facts | 15.0 [11.0 to 19.0] | % points | 122 |",
        "| Against full training | forgetting: general text | 0.162",
        "AutoModelForCausalLM.from_pretrained(path)",
        "seed: 0",
    ):
        assert part in text, part


def test_rows_of_a_table_have_equal_cells(tmp_path):
    plan = make_plan_and_profile()[0]
    plan = LayerPlan.from_dict({**plan.to_dict(), "options": {"note": "a | b\nc"}})
    lines = make_card(tmp_path, plan=plan).text.splitlines()
    assert "| note | a \\| b c |" in lines
    for before, after in zip(lines, lines[1:], strict=False):
        if before.startswith("| ") and after.startswith("| "):
            assert before.replace("\\|", "").count("|") == after.replace("\\|", "").count("|")


def test_without_results_and_with_a_bare_plan(tmp_path):
    card = make_card(tmp_path, result=None, plan=LayerPlan({"a": 1.0, "b": 0.0}), training={},
                     recipe_text="")  # fmt: skip
    assert card.data.eval_results is None
    assert "## Results" not in card.text
    assert "Nothing was recorded" in card.text and "a plan written by hand" in card.text


def test_full_training_is_not_called_partial(tmp_path):
    card = make_card(tmp_path, plan=LayerPlan({"a": 1.0}, policy="all"))
    assert "All of its parameters were trained" in card.text


def test_a_recipe_cannot_break_out_of_its_code_block(tmp_path):
    card = make_card(tmp_path, recipe_text="name: x\n# ```\n# text\n")
    assert "````yaml\nname: x" in card.text
