"""What is left of a training's change, against the same training that keeps all of it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import build_model, plan_for
from hand_training import arguments, by_trainer, largest_gap, moved
from safetensors.torch import load_file, save_file
from test_callback import run_on_two_processes

from evaluation.studies.rivals.badam import BAdam
from evaluation.studies.rivals.lisa import Lisa
from gradloc.errors import MethodError
from gradloc.training.methods.base import TrainContext
from gradloc.training.methods.interpolation import START_FILE, InterpolationCallback
from gradloc.training.methods.method_table import build_method


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("interpolation", "vector_interpolation"), [(0.25, 0.0), (0.5, 0.75), (1.0, 1.0)]
)
def test_a_share_of_the_way_is_kept(tmp_path, interpolation, vector_interpolation):
    start = weights(build_model("llama_tied"))
    far = build_model("llama_tied")
    by_trainer(tmp_path, far, [], plan_for(far))
    back = build_model("llama_tied")
    by_trainer(
        tmp_path,
        back,
        [InterpolationCallback(interpolation, vector_interpolation=vector_interpolation)],
        plan_for(back),
    )
    kinds = set()
    for (name, whole), part in zip(far.named_parameters(), back.parameters(), strict=True):
        share = vector_interpolation if whole.dim() == 1 else interpolation
        torch.testing.assert_close(
            part - start[name], share * (whole - start[name]), rtol=1e-5, atol=1e-7
        )
        if (whole != start[name]).any():
            kinds.add(whole.dim())
    assert kinds == {1, 2}  # norms and matrices did train


def test_what_is_frozen_is_not_touched(tmp_path):
    model = build_model("llama_tied")
    by_trainer(
        tmp_path, model, build_method("interpolate_to_start").callbacks(None), plan_for(model)
    )
    assert {name.rsplit(".", 2)[0] for name in moved(model)} == {
        "model.layers.1.mlp",
        "model.layers.2.self_attn",
    }


@pytest.mark.slow
def test_the_start_rides_with_checkpoints(tmp_path):
    def train(resume=None, **changes):
        model = build_model("llama_tied")
        callbacks = [InterpolationCallback(0.5)]
        return by_trainer(tmp_path, model, callbacks, plan_for(model), resume, **changes).model

    straight = train(save_strategy="steps", save_steps=2)
    # A checkpoint may be resumed from anywhere, and another's may lie where this one would save.
    checkpoint = (tmp_path / "checkpoint-2").rename(tmp_path / "kept")
    (tmp_path / "checkpoint-2").mkdir()
    others = {name: weight + 1 for name, weight in load_file(checkpoint / START_FILE).items()}
    save_file(others, tmp_path / "checkpoint-2" / START_FILE)
    assert largest_gap(straight, train(str(checkpoint))) == 0
    (checkpoint / START_FILE).unlink()
    with pytest.raises(MethodError, match="Start again"):
        train(str(checkpoint))


@pytest.mark.slow
@pytest.mark.parametrize("turns", [Lisa(n_blocks=1, period=1), BAdam(period=1)])
def test_blocks_that_rest_at_the_end_are_interpolated_too(tmp_path, turns):
    found = []
    for order in (1, -1):
        model = build_model("llama_tied")
        context = TrainContext(model, None, None, arguments(tmp_path))
        callbacks = [InterpolationCallback(0.5), *turns.callbacks(context)][::order]
        by_trainer(tmp_path, model, callbacks, plan_for(model))
        found.append(model)
    assert largest_gap(*found) == 0
    assert moved(found[0])


def test_low_precision_weights_are_interpolated_in_float32():
    model = build_model("llama_tied").to(torch.bfloat16)
    state = SimpleNamespace(global_step=0)
    callback = InterpolationCallback(0.5)
    callback.on_train_begin(None, state, None, model=model)
    weight = model.model.layers[0].mlp.up_proj.weight
    start = weight.detach().float()
    with torch.no_grad():
        weight.add_(torch.randn_like(weight))
    end = weight.detach().float()
    callback.on_train_end(None, state, None, model=model)
    assert torch.equal(weight, (start + 0.5 * (end - start)).to(torch.bfloat16))


@pytest.mark.parametrize(
    "wrong", [{"interpolation": 0.0}, {"interpolation": 1.5}, {"vector_interpolation": -0.1}]
)
def test_shares_out_of_range_are_refused(wrong):
    with pytest.raises(MethodError, match=next(iter(wrong))):
        build_method("interpolate_to_start", wrong)


def test_what_holds_no_weights_of_its_own_is_refused():
    from peft import LoraConfig, get_peft_model

    state = SimpleNamespace(global_step=0)
    model = build_model("llama_tied")
    with pytest.raises(MethodError, match="DeepSpeed"):
        InterpolationCallback().on_train_begin(
            SimpleNamespace(deepspeed="zero.json"), state, None, model=model
        )
    flat = torch.nn.Sequential(type("FullyShardedDataParallel", (torch.nn.Linear,), {})(2, 2))
    with pytest.raises(MethodError, match="FSDP"):
        InterpolationCallback().on_train_begin(None, state, None, model=flat)
    adapted = get_peft_model(model, LoraConfig(target_modules=["up_proj"]))
    with pytest.raises(MethodError, match="adapters"):
        InterpolationCallback().on_train_begin(None, state, None, model=adapted)


SHARDED_SCRIPT = """
import sys
from pathlib import Path
from types import SimpleNamespace
import torch
from torch.distributed.fsdp import fully_shard
sys.path.insert(0, {tests!r})
from conftest import build_model
from gradloc.training import trainer_hooks
from gradloc.training.methods.interpolation import InterpolationCallback

torch.distributed.init_process_group("gloo")
mesh = torch.distributed.init_device_mesh("cpu", (2,))
shards, whole = build_model("llama_tied"), build_model("llama_tied")
for layer in shards.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(shards, mesh=mesh)
args = SimpleNamespace(output_dir={folder!r}, deepspeed=None)
first = torch.distributed.get_rank() == 0
state = SimpleNamespace(global_step=0, is_world_process_zero=first)
out, resumed, plain = (InterpolationCallback(0.25) for _ in range(3))
out.on_train_begin(args, state, None, model=shards)
plain.on_train_begin(args, state, None, model=whole)
state.global_step = 5
checkpoint = Path({folder!r}) / "checkpoint-5"
out.on_save(args, state, None, model=shards)
if first:
    (checkpoint / "trainer_state.json").write_text('{{"global_step": 5}}')
torch.distributed.barrier()
trainer_hooks._resumed[id(args)] = checkpoint
resumed.on_train_begin(args, state, None, model=shards)
with torch.no_grad():
    for model in (shards, whole):
        for parameter in model.parameters():
            parameter.mul_(3.0)
resumed.on_train_end(args, state, None, model=shards)
plain.on_train_end(args, state, None, model=whole)
expected = whole.state_dict()
for name, value in shards.state_dict().items():
    torch.testing.assert_close(value.full_tensor(), expected[name], msg=name)
start = build_model("llama_tied").state_dict()
name = "model.layers.0.mlp.up_proj.weight"
torch.testing.assert_close(expected[name], 1.5 * start[name])
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_sharded_weights_are_interpolated_like_whole_ones(tmp_path):
    """FSDP2 over gloo, resumed from the start that the first process has written."""
    (tmp_path / "checkpoint-5").mkdir()
    script = tmp_path / "script.py"
    tests = str(Path(__file__).parent)
    script.write_text(SHARDED_SCRIPT.format(tests=tests, folder=str(tmp_path)))
    run_on_two_processes(script)
