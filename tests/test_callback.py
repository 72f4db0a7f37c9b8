import copy
import functools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from conftest import CHOSEN, build_model, plan_for, training_arguments
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback

from gradloc import GradLocCallback, LayerPlan, attach
from gradloc.config.default import GradLocConfig
from gradloc.data.corpora import fact_passages
from gradloc.errors import (
    FrozenParametersChangedError,
    GradlocError,
    MeasurementError,
    MethodError,
    PlanMismatchError,
    SelectionError,
)
from gradloc.localization.cost.step_shape import DEFAULT_KL_TOKENS
from gradloc.models.units import find_units
from gradloc.training.methods.base_targets import base_targets
from gradloc.training.methods.input_covariance import (
    input_projections,
    linear_modules,
    mean_covariance,
)
from gradloc.training.methods.input_projection import InputProjectionCallback
from gradloc.training.methods.interpolation import START_FILE, InterpolationCallback
from gradloc.training.methods.method_table import build_methods
from gradloc.training.methods.reference_kl import ReferenceKLCallback


class Rows(Dataset):
    def __init__(self, n=24):
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(0, 97, (n, 10), generator=generator)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


arguments = functools.partial(
    training_arguments,
    per_device_train_batch_size=4,
    max_steps=6,
    learning_rate=1e-2,
    weight_decay=0.1,
    save_strategy="steps",
    save_steps=2,
    logging_steps=1,
    seed=0,
)


def trainer_for(folder, callback=None, model=None, **changes):
    return Trainer(
        model=model or build_model("llama_tied").train(),
        args=arguments(folder, **changes),
        train_dataset=Rows(),
        callbacks=[callback] if callback else None,
    )


def changed_units(model, before):
    after = dict(model.named_parameters())
    return {
        unit.name
        for unit in find_units(model)
        if any(not torch.equal(after[name], before[name]) for name in unit.parameters)
    }


def parameters_in(model):
    return {n: p.detach().clone() for n, p in model.named_parameters()}


@pytest.mark.slow
def test_three_lines_train_the_plan_and_nothing_else(tmp_path):
    model = build_model("llama_tied").train()
    plan_path = plan_for(model).save(tmp_path / "plan.json")
    trainer = trainer_for(tmp_path / "out", GradLocCallback(plan_path), model)
    before = parameters_in(model)
    trainer.train()
    assert changed_units(model, before) == set(CHOSEN)
    with_state = {n for n, p in model.named_parameters() if p in trainer.optimizer.optimizer.state}
    assert with_state == {n for u in find_units(model) if u.name in CHOSEN for n in u.parameters}
    assert not any(p.requires_grad for n, p in model.named_parameters() if n not in with_state)


@pytest.mark.slow
def test_the_layout_of_the_optimizer_is_the_plain_trainers(tmp_path):
    plain = trainer_for(tmp_path / "a")
    plain.train()
    ours = trainer_for(tmp_path / "b", GradLocCallback(plan_for(plain.model)))
    ours.train()
    sizes = [[len(g["params"]) for g in t.optimizer.param_groups] for t in (plain, ours)]
    assert sizes[0] == sizes[1]


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 4])
@pytest.mark.parametrize("restore_states", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_resume_is_bitwise_equal_to_the_uninterrupted_run(tmp_path, step, restore_states, scale):
    plan = plan_for(build_model("llama_tied"), scale=scale)
    whole = trainer_for(tmp_path / "whole", GradLocCallback(plan))
    whole.train()
    again = trainer_for(
        tmp_path / "again",
        GradLocCallback(plan),
        restore_callback_states_from_checkpoint=restore_states,
    )
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_every_checkpoint_carries_the_plan(tmp_path):
    plan = plan_for(build_model("llama_tied"))
    trainer_for(tmp_path, GradLocCallback(plan)).train()
    for step in (2, 4, 6):
        folder = tmp_path / f"checkpoint-{step}"
        assert LayerPlan.load(folder / "plan.json") == plan
        state = json.loads((folder / "trainer_state.json").read_text())
        saved = state["stateful_callbacks"]["GradLocCallback"]["args"]["plan"]
        assert LayerPlan.from_dict(saved) == plan


@pytest.mark.slow
def test_a_checkpoint_with_another_plan_is_refused(tmp_path):
    model = build_model("llama_tied")
    trainer_for(tmp_path, GradLocCallback(plan_for(model))).train()
    other = trainer_for(tmp_path, GradLocCallback(plan_for(model, chosen=CHOSEN[:1])))
    with pytest.raises(PlanMismatchError, match="another plan"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


@pytest.mark.slow
def test_checkpoints_of_a_plain_trainer_and_ours_load_in_each_other(tmp_path):
    model = build_model("llama_tied")
    trainer_for(tmp_path / "plain").train()
    ours = trainer_for(tmp_path / "ours", GradLocCallback(plan_for(model)))
    ours.train(resume_from_checkpoint=str(tmp_path / "plain" / "checkpoint-2"))
    assert ours.state.global_step == 6
    plain = trainer_for(tmp_path / "more")
    plain.train(resume_from_checkpoint=str(tmp_path / "ours" / "checkpoint-4"))
    assert plain.state.global_step == 6


@pytest.mark.slow
def test_rates_of_a_scaled_plan_equal_a_smaller_learning_rate(tmp_path):
    model = build_model("llama_tied")
    scaled = trainer_for(tmp_path / "a", GradLocCallback(plan_for(model, scale=0.25)))
    plain = trainer_for(tmp_path / "b", GradLocCallback(plan_for(model)), learning_rate=0.25e-2)
    scaled.train()
    plain.train()
    for a, b in zip(scaled.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    logged = [e["learning_rate"] for e in scaled.state.log_history if "learning_rate" in e]
    assert logged[0] == pytest.approx(1e-2)  # the schedule's own rate, not the scaled one


@pytest.mark.slow
def test_a_second_train_call_keeps_the_freeze(tmp_path):
    model = build_model("llama_tied").train()
    trainer = trainer_for(tmp_path, GradLocCallback(plan_for(model)), model)
    before = parameters_in(model)
    trainer.train()
    trainer.train()
    assert changed_units(model, before) == set(CHOSEN)


def test_attach_works_on_a_trainer_that_exists(tmp_path):
    trainer = trainer_for(tmp_path)
    before = parameters_in(trainer.model)
    attach(trainer, plan_for(trainer.model))
    trainer.train()
    assert changed_units(trainer.model, before) == set(CHOSEN)


def test_added_too_late_is_an_error_and_not_a_silent_full_training(tmp_path):
    trainer = trainer_for(tmp_path)
    trainer.add_callback(GradLocCallback(plan_for(trainer.model)))
    with pytest.raises(GradlocError, match=r"gradloc\.attach"):
        trainer.train()


def test_a_write_to_a_frozen_weight_is_found_at_the_end(tmp_path):
    trainer = trainer_for(tmp_path, GradLocCallback(plan_for(build_model("llama_tied"))))
    step = trainer.training_step

    def meddling_step(model, *args, **kwargs):
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
        return step(model, *args, **kwargs)

    trainer.training_step = meddling_step
    with pytest.raises(FrozenParametersChangedError, match=r"layers\.0\.mlp\.up_proj"):
        trainer.train()


def test_a_plan_that_freezes_everything_is_refused(tmp_path):
    model = build_model("llama_tied")
    trainer = trainer_for(tmp_path, GradLocCallback(plan_for(model, chosen=())))
    with pytest.raises(SelectionError, match="freezes everything"):
        trainer.train()


@pytest.mark.slow
def test_on_a_peft_model_only_adapters_inside_the_plan_train(tmp_path):
    model = get_peft_model(
        build_model("llama_tied"), LoraConfig(r=2, target_modules=["q_proj", "up_proj"])
    ).train()
    plan = plan_for(model)
    before = parameters_in(model)
    trainer_for(tmp_path, GradLocCallback(plan), model).train()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    assert all("lora_" in n for n in moved)
    assert {n.split("lora_")[0] for n in moved} == {
        "base_model.model.model.layers.1.mlp.up_proj.",
        "base_model.model.model.layers.2.self_attn.q_proj.",
    }


@pytest.mark.slow
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_does_not_carry_the_backward_pass_below_the_plan(tmp_path, caplog, reentrant):
    """The reentrant form does; it trains all the same, and a warning names the cure."""
    model = build_model("llama_tied").train()
    trainer = trainer_for(
        tmp_path,
        GradLocCallback(plan_for(model, chosen=CHOSEN[1:])),
        model,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": reentrant},
        save_strategy="no",
    )
    reached = []
    before = parameters_in(model)
    model.model.layers[0].mlp.register_full_backward_hook(lambda *args: reached.append(0))
    model.model.layers[2].mlp.register_full_backward_hook(lambda *args: reached.append(2))
    trainer.train()
    assert changed_units(model, before) == {CHOSEN[1]}
    assert ("'use_reentrant': False" in caplog.text) is reentrant
    if not reentrant:
        assert set(reached) == {2}


@pytest.mark.slow
def test_where_one_process_has_several_gpus_hooks_on_the_model_are_left_out(tmp_path):
    """nn.DataParallel copies the model at each step, and hooks would go on with the first one."""

    def train(**options):
        plan = plan_for(build_model("llama_tied"))
        trainer = trainer_for(tmp_path, GradLocCallback(plan, **options))
        trainer.args._n_gpu = 2
        trainer.train()
        return trainer.model

    assert "forward" not in vars(train().lm_head)
    for name, value in {"cache": tmp_path, "label_loss": True, "bfloat16": ["head"]}.items():
        with pytest.raises(GradlocError, match=f"{name}=.*nn.DataParallel"):
            train(**{name: value})


def test_gradient_accumulation_gives_the_same_weights_as_a_larger_batch(tmp_path):
    plan = plan_for(build_model("llama_tied"))
    trained = []
    for name, batch, accumulation in (("a", 4, 1), ("b", 2, 2)):
        trainer = trainer_for(
            tmp_path / name,
            GradLocCallback(plan),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            save_strategy="no",
        )
        trainer.train()
        trained.append(trainer.model)
    for a, b in zip(*(m.parameters() for m in trained), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


TWO_PROCESSES = """
import sys
sys.path.insert(0, {tests!r})
from test_callback import *

folder, sharded = Path({folder!r}), {sharded}
trainer = trainer_anywhere(folder, {projected}, sharded, ddp_backend="gloo",
                           per_device_train_batch_size=2, **{settings})
before = parameters_in(trainer.model)
trainer.train()
assert torch.distributed.get_world_size() == 2
parameters = dict(trainer.model.named_parameters())
assert all(hasattr(p, "full_tensor") for p in parameters.values()) is sharded
weights = {{name: p.full_tensor() if sharded else p.detach() for name, p in parameters.items()}}
(callback,) = callbacks_of(trainer, GradLocCallback)
changed = {{
    unit.name
    for unit in find_units(build_model("llama_tied"))
    if any(not torch.equal(weights[name], before[name]) for name in unit.parameters)
}}
assert changed == set(callback.plan.trained)
assert callback.n_verified > 0
mine = torch.cat([weight.flatten() for weight in weights.values()])
theirs = [torch.empty_like(mine) for _ in range(2)]
torch.distributed.all_gather(theirs, mine)
assert torch.equal(*theirs), "ranks diverged"
if trainer.is_world_process_zero():
    torch.save(weights, folder / "weights.pt")
callback.restore()
assert all(parameter.requires_grad for parameter in trainer.model.parameters())
torch.distributed.destroy_process_group()
"""


def trainer_anywhere(folder, projected, sharded=False, **changes):
    # The evaluation at the end leaves some of FSDP's modules with whole parameters.
    args = arguments(
        folder / "out", save_strategy="no", eval_strategy="epoch", optim="adamw_torch", **changes
    )
    # Each process holds the model to texts of its own, so one alone takes as many as two together.
    held = ReferenceKLCallback.from_texts(
        ["the old fact", "a new fact", "the new currency", "an old currency"],
        batch_size=2 if args.world_size == 2 else 4,
    )
    if sharded:
        assert args.device.type == "cpu"  # looking makes the state that is changed now
        # accelerate shards on accelerators alone, but FSDP2 over gloo does so on CPUs as well.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    plan = plan_for(build_model("llama_tied"), scale=0.5)
    files = folder / "probes.jsonl", folder / "reference.jsonl"
    return Trainer(
        model=build_model("llama_tied").train(),
        args=args,
        train_dataset=Rows(),
        eval_dataset=Rows(8),
        processing_class=tiny_tokenizer(),
        callbacks=[GradLocCallback.from_probes(files[0], reference=files[1]), held]
        if projected
        else [GradLocCallback(plan)],
    )


def run_on_two_processes(script):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node=2",
            "--master-port=0",
            "--rdzv-backend=c10d",
            "--rdzv-endpoint=127.0.0.1:0",
            str(script),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]


DDP = {"ddp_find_unused_parameters": False}
FSDP2 = {
    "fsdp": True,
    "fsdp_config": {
        "fsdp_version": 2, "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"],
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize(("sharded", "settings"), [(False, DDP), (True, FSDP2)])
def test_two_processes_train_as_one(tmp_path, projected, sharded, settings):
    """DDP without find_unused_parameters and FSDP2, equal to one process on the same batches."""
    folder, single_folder = tmp_path / "two", tmp_path / "one"
    for each in (folder, single_folder):
        each.mkdir()
        write_probes(each)
    script = tmp_path / "script.py"
    script.write_text(
        TWO_PROCESSES.format(
            tests=str(Path(__file__).parent),
            folder=str(folder),
            projected=projected,
            sharded=sharded,
            settings=settings,
        )
    )
    run_on_two_processes(script)
    single = trainer_anywhere(single_folder, projected)
    single.train()
    together = torch.load(folder / "weights.pt")
    for name, parameter in single.model.named_parameters():
        torch.testing.assert_close(together[name], parameter, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_in_trl_sft_trainer(tmp_path):
    from datasets import Dataset as HfDataset
    from trl import SFTConfig, SFTTrainer

    tokenizer = tiny_tokenizer()
    model = build_model("llama_tied").train()
    before = copy.deepcopy(parameters_in(model))
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(tmp_path),
            max_steps=3,
            use_cpu=True,
            bf16=False,
            report_to="none",
            learning_rate=1e-2,
            per_device_train_batch_size=2,
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=HfDataset.from_dict({"text": ["a new fact here", "an old fact there"] * 6}),
        processing_class=tokenizer,
        callbacks=[GradLocCallback(plan_for(model))],
    )
    trainer.train()
    assert changed_units(trainer.model, before) == set(CHOSEN)


def tiny_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = "a an the new old fact here there currency of Croatia is euro kuna . ,".split()
    vocabulary = {word: i + 2 for i, word in enumerate(words)} | {"<unk>": 0, "<eos>": 1}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>", pad_token="<eos>"
    )


def write_probes(folder):
    rows = [
        {"id": str(i), "group": "new", "prompt": prompt, "targets": [target], "entity": str(i)}
        for i, (prompt, target) in enumerate(
            [
                ("the currency of Croatia is the", "euro"),
                ("an old fact is", "here"),
                ("the new fact is", "there"),
                ("a currency is the", "kuna"),
            ]
        )
    ]
    path = folder / "probes.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    reference = folder / "reference.jsonl"
    texts = [
        "the old fact is here .",
        "a fact of the new currency",
        "an old currency there",
        "the fact is of an old",
    ]
    reference.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return path, reference


@pytest.mark.slow
def test_from_probes_measures_selects_and_freezes(tmp_path):
    probes, reference = write_probes(tmp_path)
    callback = GradLocCallback.from_probes(probes, reference=reference, policy="top_rgn_k", k=2)
    model = build_model("llama_tied").train()
    trainer = Trainer(
        model=model,
        args=arguments(tmp_path / "out"),
        train_dataset=Rows(),
        processing_class=tiny_tokenizer(),
        callbacks=[callback],
    )
    before = parameters_in(model)
    trainer.train()
    assert callback.profile.probe_norms.shape == (4, len(find_units(model)))
    assert len(callback.plan.trained) == 2
    assert changed_units(model, before) == set(callback.plan.trained)

    resumed = GradLocCallback.from_probes(probes, reference=reference, policy="bottom_k", k=1)
    trainer = Trainer(
        model=build_model("llama_tied").train(),
        args=arguments(tmp_path / "out"),
        train_dataset=Rows(),
        processing_class=tiny_tokenizer(),
        callbacks=[resumed],
    )
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert resumed.plan == callback.plan  # the checkpoint's, not measured anew
    assert resumed.profile is None


def projecting_trainer(folder, callback, *more, model=None, **changes):
    probes, reference = write_probes(folder)
    return Trainer(
        model=model or build_model("llama_tied").train(),
        args=arguments(folder / "out", **changes),
        train_dataset=Rows(),
        processing_class=tiny_tokenizer(),
        callbacks=[callback or GradLocCallback.from_probes(probes, reference=reference), *more],
    )


def callbacks_of(trainer, kind):
    return [c for c in trainer.callback_handler.callbacks if isinstance(c, kind)]


@pytest.mark.slow
def test_by_default_steps_are_projected_and_held_to_facts_and_a_part_is_kept(tmp_path):
    """The same weights as with the plan, and with protection that is made here, by hand."""
    trainer = projecting_trainer(tmp_path, None)
    trainer.train()
    (callback,) = callbacks_of(trainer, GradLocCallback)
    assert callback.projection is not None and callback.interpolate_to_start.interpolation == 0.75
    assert callback.reference_kl.value > 0

    base = build_model("llama_tied")
    trained = {
        name
        for unit in find_units(base)
        if callback.plan.scale[unit.name]
        for name in unit.parameters
    }
    names = [name for name in linear_modules(base) if name in trained]
    lines = (tmp_path / "reference.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    facts, length = [passage.text for passage in fact_passages()], GradLocConfig().max_tokens
    groups = [
        [tiny_tokenizer()(text)["input_ids"] for text in texts],
        [tiny_tokenizer()(text)["input_ids"][:length] for text in facts],
        [row["input_ids"].tolist() for row in Rows()],
    ]
    projections = input_projections(mean_covariance(base, groups, names, 0))
    rows = [tuple(row) for row in groups[1]]
    held = ReferenceKLCallback(
        base_targets(base, random.Random(0).sample(rows, len(rows))), weight=1.0, every=4
    )
    plan, projection = GradLocCallback(callback.plan), InputProjectionCallback(projections)
    by_hand = projecting_trainer(tmp_path, plan, projection, held, adam_beta1=0.0)
    by_hand.train()
    with torch.no_grad():
        for end, start in zip(by_hand.model.parameters(), base.parameters(), strict=True):
            end.copy_(start if end.dim() == 1 else start + 0.75 * (end - start))
    for name, value in by_hand.model.state_dict().items():
        torch.testing.assert_close(trainer.model.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    for more in ([held], [projection]):  # the other one left out
        plan = GradLocCallback(callback.plan)
        without = projecting_trainer(
            tmp_path, plan, InterpolationCallback(0.75), *more, adam_beta1=0.0
        )
        without.train()
        assert not torch.allclose(
            trainer.model.state_dict()[names[0]], without.model.state_dict()[names[0]], atol=1e-4
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "arguments", "beta"),
    [
        ({}, {}, 0.0),
        ({}, {"adam_beta1": 0.8}, 0.0),  # a warning says so
        ({"momentum": 0.9}, {"adam_beta1": 0.9}, 0.9),
        ({"momentum": 0.5}, {"adam_beta1": 0.8}, 0.5),
        ({"protect": False}, {"adam_beta1": 0.8}, 0.8),
        ({"policy": "top_rgn_k", "k": 2}, {}, 0.9),
        ({"policy": "top_rgn_k", "k": 2, "momentum": 0.0}, {}, 0.0),
    ],
)
def test_the_default_policy_goes_without_momentum(tmp_path, caplog, options, arguments, beta):
    probes, reference = write_probes(tmp_path)
    callback = GradLocCallback.from_probes(probes, reference=reference, **options)
    trainer = projecting_trainer(tmp_path, callback, max_steps=1, **arguments)
    trainer.train()
    trainer.train()
    assert {group["betas"] for group in trainer.optimizer.param_groups} == {(beta, 0.999)}
    overridden = beta != trainer.args.adam_beta1 and "momentum" not in options
    assert ("overrides a training argument: adam_beta1 is 0, not" in caplog.text) is overridden


def test_adapters_keep_their_momentum(tmp_path):
    adapters = get_peft_model(
        build_model("llama_tied"), LoraConfig(r=2, target_modules=["up_proj", "down_proj"])
    )
    trainer = projecting_trainer(tmp_path, None, model=adapters, max_steps=1)
    trainer.train()
    assert {group["betas"][0] for group in trainer.optimizer.param_groups} == {0.9}


@pytest.mark.slow
def test_momentum_is_refused_out_of_range_and_where_the_optimizer_has_none(tmp_path):
    probes, reference = write_probes(tmp_path)
    with pytest.raises(MethodError, match=r"momentum must lie in \[0, 1\)"):
        GradLocCallback.from_probes(probes, reference=reference, momentum=1.0)
    asked = GradLocCallback.from_probes(probes, reference=reference, momentum=0.0)
    with pytest.raises(MethodError, match="Adam and AdamW; found SGD"):
        projecting_trainer(tmp_path, asked, max_steps=1, optim="sgd").train()
    projecting_trainer(tmp_path, None, max_steps=1, optim="sgd").train()


@pytest.mark.slow
@pytest.mark.parametrize("restore_states", [False, True])
def test_a_resumed_training_is_projected_again(tmp_path, restore_states):
    projecting_trainer(tmp_path, None).train()
    trainer = projecting_trainer(
        tmp_path, None, restore_callback_states_from_checkpoint=restore_states
    )
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    projections = callbacks_of(trainer, InputProjectionCallback)
    assert len(projections) == 1 and projections[0].projections
    start = load_file(tmp_path / "out" / "checkpoint-2" / START_FILE)
    base = dict(build_model("llama_tied").named_parameters())
    assert start and all(torch.equal(value, base[name]) for name, value in start.items())
    trainer.train()
    for kind in (InputProjectionCallback, ReferenceKLCallback, InterpolationCallback):
        assert len(callbacks_of(trainer, kind)) == 1, "a second train() protects once"


def test_what_cannot_be_measured_or_chosen_is_refused_before_any_training(tmp_path):
    probes, reference = write_probes(tmp_path)
    for wrong, match in (
        ({"policy": "interference"}, "is unknown. Did you mean"),
        ({"kepe": 0.5}, "no option 'kepe'"),
        ({"bfloat16": "head"}, r"give a list, \['head'\]"),
    ):
        with pytest.raises(GradlocError, match=match):
            GradLocCallback.from_probes(probes, reference=reference, **wrong)
    rows = [json.loads(line) | {"group": "invariant"} for line in probes.read_text().splitlines()]
    probes.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(MeasurementError, match="none of the 4 probes can choose layers"):
        GradLocCallback.from_probes(probes, reference=reference)


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "warned"), [(5e-5, True), (6e-5, True), (4e-3, False)])
def test_the_trainers_own_rate_is_too_low_for_projected_steps(tmp_path, caplog, rate, warned):
    probes, reference = write_probes(tmp_path)
    callback = GradLocCallback.from_probes(probes, reference=reference, kl=0)
    projecting_trainer(tmp_path, callback, max_steps=1, learning_rate=rate).train()
    assert ("twenty to forty times" in caplog.text) is warned


@pytest.mark.slow
def test_one_line_says_what_trains_and_what_protects(tmp_path, capsys, caplog):
    """It is shown in a plain script, which sets up no logging."""
    probes, reference = write_probes(tmp_path)
    callback = GradLocCallback.from_probes(probes, reference=reference, kl=0.5)
    projecting_trainer(tmp_path, callback, max_steps=1, learning_rate=4e-3).train()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gradloc")]
    (line,) = lines
    n_trained = len(callback.plan.trained)
    assert f"trains {n_trained} of {len(callback.plan.scale)} units" in line
    assert f"{callback.trainable_fraction:.1%} of the parameters" in line
    assert "chosen by interference_ratio, reliability" in line
    assert "projection 1, KL 0.5 once in 4 steps, interpolation 0.75, momentum 0" in line
    assert line.endswith("Learning rate 0.004.")
    noise = callback.plan.reliability["warning"]
    assert (noise in caplog.text) if noise else "ranking behind" not in caplog.text

    plan = GradLocCallback(plan_for(build_model("llama_tied")))
    with caplog.at_level("INFO"):
        trainer_for(tmp_path / "b", plan, max_steps=1).train()
    assert "2 of 8 units" in caplog.text and "Protection: none." in caplog.text
    assert "chosen by hand" in caplog.text and "gradloc trains" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("disable_tqdm", [False, True])
def test_each_preparation_has_a_bar_unless_they_are_declined(tmp_path, capsys, disable_tqdm):
    trainer = projecting_trainer(tmp_path, None, max_steps=1, disable_tqdm=disable_tqdm)
    trainer.train()
    shown = capsys.readouterr().err
    for bar in ("reference gradients", "input covariance", "base predictions"):
        assert (bar in shown) is not disable_tqdm, bar


@pytest.mark.slow
def test_protection_is_left_out_where_it_is_not_wanted_or_cannot_act(tmp_path, caplog):
    probes, reference = write_probes(tmp_path)

    def train(model=None, **options):
        callback = GradLocCallback.from_probes(probes, reference=reference, **options)
        projecting_trainer(tmp_path, callback, model=model, max_steps=1).train()
        found = callback.projection, callback.reference_kl, callback.interpolate_to_start
        return tuple(each is not None for each in found)

    assert train() == (True, True, True)
    assert train(policy="top_rgn_k", k=2) == (False, False, False)
    assert train(projection=0) == (False, True, True)
    assert train(kl=0) == (True, False, True)
    assert train(interpolation=1) == (True, True, False)
    options = {"policy": "top_rgn_k", "k": 2, "projection": 0.5, "kl": 0.5, "interpolation": 0.9}
    assert train(**options) == (True, True, True)

    def adapters():
        model = build_model("llama_tied").train()
        return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "up_proj"]))

    assert train(adapters()) == (False, False, False)
    assert train(adapters(), kl=1.0) == (False, True, False)
    assert "trains without a projection" in caplog.text
    with pytest.raises(MethodError, match="linear layer"):
        train(adapters(), projection=1.0)
    with pytest.raises(MethodError, match="adapters train"):
        train(adapters(), interpolation=0.5)

    def norms_alone():
        model = build_model("llama_tied").train()
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.dim() == 1)
        return model

    # Norms return altogether, so nothing would be left.
    assert train(norms_alone())[2] is False
    with pytest.raises(MethodError, match="nothing but norms and biases trains"):
        train(norms_alone(), interpolation=0.5)
    with pytest.raises(MethodError, match="0 or more"):
        GradLocCallback.from_probes(probes, reference=reference, projection=-1)
    with pytest.raises(MethodError, match="kl: its strength must be 0 or more"):
        GradLocCallback.from_probes(probes, reference=reference, kl=-1)
    with pytest.raises(MethodError, match="interpolation"):
        GradLocCallback.from_probes(probes, reference=reference, interpolation=0)


@pytest.mark.slow
def test_steps_are_projected_once_after_a_training_that_was_broken_off(tmp_path):
    """The optimizer outlives it, and with it the hooks of the projection."""

    class Interrupt(TrainerCallback):
        n_hooks = 0

        def on_step_end(self, args, state, control, optimizer=None, **kwargs):
            if not self.n_hooks:
                self.n_hooks = len(optimizer.optimizer._optimizer_step_post_hooks)
                raise KeyboardInterrupt
            assert len(optimizer.optimizer._optimizer_step_post_hooks) == self.n_hooks

    trainer = projecting_trainer(tmp_path, None, Interrupt(), max_steps=2)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.train()


@pytest.mark.slow
def test_protection_that_is_given_takes_the_place_of_the_default_one(tmp_path):
    probes, reference = write_probes(tmp_path)

    def train(**options):
        projection = InputProjectionCallback.from_texts(
            ["an old fact is here .", "the new currency"]
        )
        own = [
            projection,
            ReferenceKLCallback.from_texts(["an old fact"]),
            InterpolationCallback(0.9),
        ]
        callback = GradLocCallback.from_probes(probes, reference=reference, **options)
        trainer = projecting_trainer(tmp_path, callback, *own, max_steps=1)
        trainer.train()
        return callback, callbacks_of(trainer, tuple(type(each) for each in own)), own

    callback, found, own = train()
    assert (
        callback.projection is callback.reference_kl is callback.interpolate_to_start is None
        and found == own
    )
    for option in ("projection", "kl", "interpolation"):
        with pytest.raises(MethodError, match=f"{option}=..."):
            train(**{option: 0.5})


@pytest.mark.slow
def test_with_a_cache_the_model_is_held_to_facts_all_the_same(tmp_path):
    """The passages pass through the same blocks as the rows that train."""
    probes, reference = write_probes(tmp_path)
    options = dict(
        reference=reference, policy="last_third_mlp", projection=1.0, kl=1.0, interpolation=0.75
    )

    def train(cache=None, **changes):
        callback = GradLocCallback.from_probes(probes, cache=cache, **options | changes)
        trainer = projecting_trainer(tmp_path, callback, max_steps=12)
        trainer.train()
        return callback, trainer.model.state_dict()

    plain, cached, without = train(), train(tmp_path / "cache"), train(kl=0)
    assert cached[0].prefix_cache.n_hits > 0 and cached[0].reference_kl.value > 0
    assert (cached[0].reference_kl.value - plain[0].reference_kl.value).abs() < 1e-6
    for name, value in plain[1].items():
        torch.testing.assert_close(cached[1][name], value, rtol=1e-4, atol=1e-5)
    assert any(not torch.allclose(without[1][n], v, atol=1e-4) for n, v in plain[1].items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("without", "parts"),
    [
        ({"projection": 0}, ("optimizer_ratio", "memory_ratio")),
        ({"kl": 0}, ("forward_ratio", "backward_ratio")),
    ],
    ids=["projection", "kl"],
)
def test_a_plan_that_is_protected_is_predicted_to_cost_that(tmp_path, without, parts):
    """A budget that forgot the projection or the old text would be overrun by every step."""
    probes, reference = write_probes(tmp_path)
    predicted = []
    for options in ({}, without):
        callback = GradLocCallback.from_probes(probes, reference=reference, **options)
        projecting_trainer(tmp_path, callback, max_steps=1).train()
        predicted.append(callback.plan.predicted)
    for part in parts:
        assert predicted[0][part] > predicted[1][part], part


def test_the_old_text_that_is_predicted_is_that_which_passes():
    """The cost model cannot import what trains; its counts must not drift from it."""
    default = build_methods(GradLocConfig().methods())["reference_kl"]
    assert default.kl_tokens(max_length=128) == DEFAULT_KL_TOKENS
