"""The default is defined once, and every road to it trains the same weights."""

import dataclasses
import json

import pytest
import torch
from conftest import INVENTED_WORLD
from transformers import HfArgumentParser, Trainer, TrainingArguments

from gradloc import GradLocCallback, load_recipe
from gradloc.config.default import PRESETS, GradLocConfig
from gradloc.config.recipe import ArmConfig, Recipe
from gradloc.data.batches import collate, pad_token_id, training_rows
from gradloc.data.corpora.readers import read_corpus
from gradloc.data.preparation import build_probes, training_documents
from gradloc.errors import GradlocError, MethodError
from gradloc.experiments.train import train
from gradloc.localization.probe_profile import recipe_reference
from gradloc.models import load_model, load_tokenizer
from gradloc.training.methods.input_projection import InputProjectionCallback

EXPECTED = GradLocConfig(
    policy="top_rgn_k", policy_options='{"k":2}', projection=0.5, momentum=0.9, label_loss=False,
    bfloat16=["head", "suffix"], cache="states", granularity="block", draw_seed=3,
)  # fmt: skip
OPTIONS = """--policy top_rgn_k --policy_options {"k":2} --projection 0.5 --momentum 0.9
    --label_loss false --bfloat16 head suffix --cache states --granularity block --draw_seed 3"""


def test_parsers_take_it_beside_training_arguments(tmp_path):
    parser = HfArgumentParser((GradLocConfig, TrainingArguments))
    assert "--projection" in parser.format_help()
    ours, theirs = parser.parse_args_into_dataclasses(
        [*OPTIONS.split(), "--output_dir", str(tmp_path), "--seed", "5"]
    )
    assert ours == EXPECTED and ours.options == {"k": 2}
    assert theirs.seed == 5
    ours, _ = parser.parse_args_into_dataclasses(["--output_dir", str(tmp_path)])
    assert ours == GradLocConfig()


def test_trls_parser_takes_it_beside_its_own_arguments(tmp_path):
    trl = pytest.importorskip("trl")
    file = tmp_path / "run.yaml"
    file.write_text(
        "policy: top_rgn_k\npolicy_options: {k: 2}\nprojection: 0.5\nkl: null\n"
        f"output_dir: {tmp_path}\nuse_cpu: true\nbf16: false\n"
    )
    parser = trl.TrlParser((GradLocConfig, trl.SFTConfig))
    ours, theirs = parser.parse_args_and_config(
        ["--config", str(file), "--projection", "0.7", "--max_length", "99"]
    )
    assert (ours.policy, ours.options, ours.projection, ours.kl) == (
        "top_rgn_k", {"k": 2}, 0.7, None,
    )  # fmt: skip
    assert theirs.max_length == 99


def test_strengths_that_are_left_open_go_with_the_policy():
    def strengths(**fields):
        found = GradLocConfig(**fields).resolved()
        return found.projection, found.kl, found.interpolation, found.momentum

    assert strengths() == strengths(policy="all", protect=True) == (1.0, 1.0, 0.75, 0.0)
    assert strengths(protect=False) == strengths(policy="all") == (0.0, 0.0, 1.0, None)
    assert strengths(policy="all", kl=0.5, momentum=0.0) == (0.0, 0.5, 1.0, 0.0)
    assert strengths(kl=0) == (1.0, 0, 0.75, 0.0)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"projection": -1}, "projection: .* 0 or more; found -1"),
        ({"interpolation": 0}, "above 0 and at most 1; found 0"),
        ({"n_probes": 0}, "n_probes must be 1 or more"),
        ({"policy_options": "k=2"}, "no JSON"),
        ({"policy_options": "[2]"}, "give a dictionary"),
        ({"bfloat16": "head"}, r"give a list, \['head'\]"),
    ],
)
def test_values_out_of_range_are_refused(fields, match):
    with pytest.raises(GradlocError, match=match):
        GradLocConfig(**fields)


def test_a_misspelt_field_is_answered_with_those_there_are(tmp_path):
    with pytest.raises(GradlocError, match="no option 'interpolatoin'.*interpolation, momentum"):
        GradLocCallback(None, interpolatoin=0.5)


def test_a_preset_is_spelt_out_and_what_the_arm_says_goes_before_it(tmp_path):
    spelt = ArmConfig(methods=GradLocConfig().methods(), training={"adam_beta1": 0.0})
    arms = {
        "plain": ArmConfig(preset="protected"),
        "own": ArmConfig(
            preset="protected",
            policy="all",
            methods={"reference_kl": {"weight": 0.5}, "replay": {}},
            training={"learning_rate": 1e-3},
        ),
    }
    recipe = Recipe("x", arms=arms)
    assert recipe.arms["plain"] == Recipe("x").arms["protected"] == spelt
    own = recipe.arms["own"]
    assert own.policy == "all" and own.training == {"adam_beta1": 0.0, "learning_rate": 1e-3}
    assert list(own.methods) == [*GradLocConfig().methods(), "replay"]
    kl = GradLocConfig().methods()["reference_kl"]
    assert kl["every"] == 4 and own.methods["reference_kl"] == {**kl, "weight": 0.5}
    # A value that the recipe gives to all arms was given.
    given = Recipe("x", arms=arms, training={"adam_beta1": 0.9}).arms["plain"]
    assert given.training == {}
    assert load_recipe(recipe.save(tmp_path / "recipe.yaml")) == recipe
    assert "preset" not in (tmp_path / "recipe.yaml").read_text()
    assert set(PRESETS) == {"protected"}


def recipe_of(tmp_path, tiny_checkpoint, **corpus):
    return load_recipe(
        "quickstart",
        [
            f"model={tiny_checkpoint}",
            f"output_dir={tmp_path}",
            f"corpus.max_length={corpus.get('max_length', 96)}",
            f"corpus.packing={json.dumps(corpus.get('packing', False))}",
            f"corpus.source={INVENTED_WORLD}",
            "corpus.paths=[]",
            "probes.sources=[]",
            "corpus.options={n_entities: 8, n_phrasings: 2}",
            "probes.max_evaluation=4",
            "training.max_steps=6",
            "training.use_cpu=true",
            "evaluation.n_curve_points=0",
        ],
    )


def by_script(recipe, out, **fields):
    """What a user writes in an ordinary script, on the rows of the recipe."""
    corpus = read_corpus(recipe.corpus, seed=recipe.seed)
    probes = build_probes(recipe, corpus)
    texts = [document.text for document in training_documents(recipe, corpus, probes)]
    tokenizer = load_tokenizer(recipe.model)
    length = recipe.corpus.max_length
    rows = list(training_rows(tokenizer, texts, max_length=length, packing=recipe.corpus.packing))
    callback = GradLocCallback.from_probes(
        probes,
        reference=recipe_reference(recipe, corpus),
        max_tokens=length,
        draw_seed=recipe.seed,
        **fields,
    )
    trainer = Trainer(
        load_model(recipe.model, dtype=recipe.dtype),
        TrainingArguments(
            str(out),
            seed=recipe.seed,
            data_seed=recipe.seed,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            **{"learning_rate": 4e-3, **recipe.training},
        ),
        train_dataset=rows,
        data_collator=lambda batch: collate(batch, pad_token_id(tokenizer)),
        processing_class=tokenizer,
        callbacks=[callback],
    )
    trainer.train()
    return trainer.model, callback


@pytest.mark.slow
@pytest.mark.parametrize(
    "corpus", [{}, {"max_length": 24}, {"packing": True}], ids=["whole", "cut", "packed"]
)
def test_the_callback_and_the_recipe_train_bitwise_the_same(
    tmp_path, tiny_checkpoint, monkeypatch, corpus
):
    made = []
    attach = InputProjectionCallback.attach

    def noted(self, *args):
        made.append({name: value.clone() for name, value in self.projections.items()})
        return attach(self, *args)

    monkeypatch.setattr(InputProjectionCallback, "attach", noted)
    recipe = recipe_of(tmp_path, tiny_checkpoint, **corpus)
    model, callback = by_script(recipe, tmp_path / "script")
    folder = train(recipe, callback.plan, arm="protected", out_dir=tmp_path / "recipe")
    by_recipe = load_model(folder).state_dict()
    assert all(torch.equal(value, by_recipe[n]) for n, value in model.state_dict().items())
    assert made[0].keys() == made[1].keys() and made[0]
    assert all(torch.equal(made[0][name], value) for name, value in made[1].items())
    base = load_model(recipe.model).state_dict()
    assert any(not torch.equal(value, base[n]) for n, value in by_recipe.items())


@pytest.mark.slow
def test_a_plan_with_a_configuration_is_protected_and_without_one_is_not(tmp_path, tiny_checkpoint):
    recipe = recipe_of(tmp_path, tiny_checkpoint)
    _, measured = by_script(recipe, tmp_path / "script")
    assert measured.projection and measured.reference_kl and measured.interpolate_to_start
    for config, protected in ((GradLocConfig(), True), (None, False)):
        callback = GradLocCallback(measured.plan, config=config)
        assert bool(callback.config.methods()) is protected
    state = dataclasses.asdict(GradLocCallback(measured.plan, config=GradLocConfig(kl=0.5)).config)
    assert GradLocConfig(**json.loads(json.dumps(state))) == GradLocConfig(kl=0.5)


def test_momentum_out_of_range_is_refused():
    with pytest.raises(MethodError, match=r"momentum must lie in \[0, 1\)"):
        GradLocConfig(momentum=1.0)
