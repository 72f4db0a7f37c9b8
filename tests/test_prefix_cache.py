"""Cached training gives the bits of uncached training, and a bad cache never gives wrong ones."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import build_model
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError, safe_open
from test_callback import arguments, plan_for
from torch.utils.data import Dataset, IterableDataset
from transformers import AutoModelForCausalLM, BioGptConfig, GPT2Config, OPTConfig, Trainer

from gradloc import GradLocCallback
from gradloc.data.batches import collate
from gradloc.errors import CacheError
from gradloc.models.prefix_cache import CacheConfig, PrefixCache, store
from gradloc.models.prefix_cache.store import HiddenStateStore
from gradloc.models.units import find_units
from gradloc.training.freezing import freeze_layers

TOP = ("model.layers.2.mlp",)


class Rows(Dataset):
    """Rows of 16 tokens, a width at which no thread cuts a row's product in two."""

    def __init__(self, n=24):
        self.ids = torch.randint(0, 97, (n, 16), generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of a few rows, so that every run writes several."""
    monkeypatch.setattr(store, "SHARD_BYTES", 3000)


def rows(*lengths):
    generator = torch.Generator().manual_seed(0)
    ragged = [torch.randint(3, 97, (n,), generator=generator).tolist() for n in lengths]
    return collate([{"input_ids": row, "labels": row} for row in ragged], pad_token_id=0)


def top_units(model):
    return tuple(u.name for u in find_units(model) if u.info.block == 2)


def frozen(model):
    freeze_layers(model, plan_for(model, top_units(model)))
    return model


def loss_and_gradients(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), grads


def equal(one, other):
    return (
        torch.equal(one[0], other[0])
        and one[1].keys() == other[1].keys()
        and all(torch.equal(grad, other[1][name]) for name, grad in one[1].items())
    )


def count_calls(module):
    calls = []
    module.register_forward_hook(lambda *given: calls.append(1))
    return calls


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("kind", ["llama", "llama_tied", "gpt2", "neox", "qwen", "gemma"])
@pytest.mark.parametrize("lengths", [(9, 9, 9), (5, 9, 7)])
def test_the_second_pass_skips_the_prefix_and_gives_the_same_bits(tmp_path, kind, lengths):
    model = frozen(without_dropout(build_model(kind))).train()
    batch = rows(*lengths)
    expected = loss_and_gradients(model, batch)
    ends = ("attn", "attention")
    attention = next(m for n, m in model.named_modules() if ".0." in n and n.endswith(ends))
    calls = count_calls(attention)
    cache = PrefixCache(model, 2, CacheConfig(str(tmp_path)))
    calls.clear()  # building it tries the model on four tokens
    first = loss_and_gradients(model, batch)
    assert (cache.n_hits, cache.n_misses, len(calls)) == (0, 1, 1)
    second = loss_and_gradients(model, batch)
    assert (cache.n_hits, cache.n_misses, len(calls)) == (1, 1, 1)
    assert equal(first, expected) and equal(second, expected)
    cache.remove()
    assert equal(loss_and_gradients(model, batch), expected) and len(calls) == 2


def build_opt():
    """OPT calls its decoder itself, and not what Transformers names its base model."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=3)
    config = OPTConfig(vocab_size=97, num_attention_heads=4, dropout=0.0, pad_token_id=1, **sizes)
    return AutoModelForCausalLM.from_config(config).train()


def test_the_decoder_is_found_where_the_head_is_fed_by_a_part_of_the_base_model(tmp_path):
    model = frozen(build_opt())
    expected = loss_and_gradients(model, rows(9, 7))
    cache = PrefixCache(model, 2, CacheConfig(str(tmp_path)))
    assert equal(loss_and_gradients(model, rows(9, 7)), expected)
    assert equal(loss_and_gradients(model, rows(9, 7)), expected)
    assert (cache.n_hits, cache.n_misses) == (1, 1)


@pytest.fixture
def set_threads():
    found = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(found)


@pytest.mark.parametrize(("width", "threads"), [(16, 1), (16, 2), (24, 2), (9, 1)])
def test_rows_are_found_again_in_any_order_and_company(tmp_path, set_threads, width, threads):
    set_threads(threads)
    found, expected = in_other_company(tmp_path, width)
    assert equal(found, expected)


def test_at_an_odd_width_company_changes_the_last_bits_at_most(tmp_path, set_threads):
    set_threads(2)
    found, expected = in_other_company(tmp_path, width=9)
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-6)
    for name, grad in expected[1].items():
        torch.testing.assert_close(found[1][name], grad, rtol=1e-4, atol=1e-6)


def in_other_company(folder, width):
    """Loss and gradients of two of four rows, with and without a cache that saw all four."""
    model = frozen(build_model("llama_tied")).train()
    batch = rows(width, width, width, width)
    cache = PrefixCache(model, 2, CacheConfig(str(folder)))
    loss_and_gradients(model, batch)
    other = {name: tensor[[3, 1]] for name, tensor in batch.items()}
    found = loss_and_gradients(model, other)
    assert cache.n_hits == 1
    cache.remove()
    return found, loss_and_gradients(model, other)


@pytest.mark.parametrize("change", ["mask", "width"])
def test_the_same_tokens_under_another_mask_or_width_are_another_row(tmp_path, change):
    model = frozen(build_model("llama_tied")).train()
    batch = rows(9, 9)
    batch["input_ids"][:, 6:] = 0  # real tokens that look like padding
    if change == "mask":
        other = {**batch, "attention_mask": batch["attention_mask"].clone()}
        other["attention_mask"][:, 6:] = 0
    else:
        other = {name: torch.nn.functional.pad(tensor, (0, 3)) for name, tensor in batch.items()}
        other["labels"][:, 9:] = -100
    expected = loss_and_gradients(model, other)
    cache = PrefixCache(model, 2, CacheConfig(str(tmp_path)))
    loss_and_gradients(model, batch)
    assert equal(loss_and_gradients(model, other), expected)
    assert (cache.n_hits, cache.n_misses) == (0, 2)


def run(folder, dataset=None, **changes):
    model = build_model("llama_tied").train()
    own = {n: changes.pop(n) for n in ("cache", "cache_max_gib", "bfloat16") if n in changes}
    callback = GradLocCallback(plan_for(model, TOP), **own)
    changes = {"max_steps": 50, "save_steps": 20, "per_device_train_batch_size": 8} | changes
    resume = changes.pop("resume", None)
    trainer = Trainer(
        model=model,
        args=arguments(folder, **changes),
        train_dataset=dataset or Rows(),
        callbacks=[callback],
    )
    if resume is None:
        trainer.train()
    else:
        trainer.train(resume_from_checkpoint=str(resume))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, {n: p.detach().clone() for n, p in model.named_parameters()}, callback


def same_run(one, other):
    return one[0] == other[0] and all(torch.equal(one[1][name], other[1][name]) for name in one[1])


@pytest.mark.slow
def test_fifty_steps_with_the_cache_are_bitwise_those_without_also_when_resumed(
    tmp_path, small_shards
):
    plain = run(tmp_path / "plain")
    cached = run(tmp_path / "cached", cache=tmp_path / "cache")
    assert same_run(cached, plain)
    # 24 rows in 3 batches an epoch: all but the first epoch is served from the cache.
    assert (cached[2].prefix_cache.n_misses, cached[2].prefix_cache.n_hits) == (3, 47)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) > 1
    again = run(
        tmp_path / "cached", cache=tmp_path / "cache", resume=tmp_path / "cached/checkpoint-20"
    )
    assert again[0][-30:] == plain[0][-30:]
    assert all(torch.equal(again[1][name], plain[1][name]) for name in plain[1])
    assert again[2].prefix_cache.n_misses == 0


class Stream(IterableDataset):
    def __iter__(self):
        yield from Rows(400)


@pytest.mark.slow
def test_a_corpus_that_is_seen_once_is_not_stored(tmp_path):
    for dataset in (Stream(), Rows(400)):
        plain = run(tmp_path / "plain", dataset=dataset)
        cached = run(tmp_path / "cached", cache=tmp_path / "cache", dataset=dataset)
        assert same_run(cached, plain)
        assert (cached[2].prefix_cache.n_bytes, cached[2].prefix_cache.n_misses) == (0, 0)


def test_other_weights_below_or_another_block_find_nothing(tmp_path):
    batch = rows(9, 9)

    def hits(model, lowest=2):
        cache = PrefixCache(model, lowest, CacheConfig(str(tmp_path)))
        loss_and_gradients(model, batch)
        cache.remove()
        return cache.n_hits

    assert hits(frozen(build_model("llama_tied"))) == 0
    assert hits(frozen(build_model("llama_tied"))) == 1
    assert hits(frozen(build_model("llama_tied")), lowest=1) == 0
    model = frozen(build_model("llama_tied"))
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] += 1e-6
    assert hits(model) == 0
    above = frozen(build_model("llama_tied"))
    with torch.no_grad():
        above.model.layers[2].mlp.down_proj.weight[0, 0] += 1
    assert hits(above) == 1  # what lies above the prefix has no part in it


def test_adapters_in_the_frozen_prefix_count_as_its_weights(tmp_path):
    def adapted(value):
        model = get_peft_model(build_model("llama_tied"), LoraConfig(target_modules=["up_proj"]))
        freeze_layers(model, plan_for(model, TOP))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "layers.0" in name and "lora_B" in name:
                    parameter.fill_(value)
        return model.train()

    batch = rows(9, 9)
    for value, hits in ((0.0, 0), (0.0, 1), (0.1, 0)):
        cache = PrefixCache(adapted(value), 2, CacheConfig(str(tmp_path)))
        cache._model(**batch)
        cache.remove()
        assert cache.n_hits == hits


def test_bfloat16_halves_the_size_and_rounds(tmp_path):
    model, batch = frozen(build_model("llama_tied")).train(), rows(9, 9)
    expected = loss_and_gradients(model, batch)
    sizes = {}
    for dtype in ("float32", "bfloat16"):
        cache = PrefixCache(model, 2, CacheConfig(str(tmp_path), dtype))
        loss_and_gradients(model, batch)
        found = loss_and_gradients(model, batch)
        assert cache.n_hits == 1
        assert equal(found, expected) == (dtype == "float32")
        assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-3)
        sizes[dtype] = cache.n_bytes
        cache.remove()
    assert sizes["float32"] == 2 * sizes["bfloat16"]


def test_generation_and_packed_rows_pass_by_the_cache(tmp_path):
    model, batch = frozen(build_model("llama_tied")).eval(), rows(9)
    cache = PrefixCache(model, 2, CacheConfig(str(tmp_path)))
    ids = batch["input_ids"]
    expected = model(input_ids=ids, use_cache=True)
    assert expected.past_key_values.get_seq_length() == 9
    assert (cache.n_hits, cache.n_misses) == (0, 0)
    apart = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])  # two texts in one row
    one = model(input_ids=ids, position_ids=apart).logits
    assert not torch.equal(one, model(input_ids=ids).logits)
    assert torch.equal(one, model(input_ids=ids, position_ids=apart).logits)


@pytest.mark.parametrize("damage", ["cut", "flipped", "no file", "other content"])
def test_a_damaged_shard_is_found_removed_and_computed_anew(tmp_path, damage, caplog):
    model, batch = frozen(build_model("llama_tied")).train(), rows(9, 9)
    expected = loss_and_gradients(model, batch)
    cache = PrefixCache(model, 2, CacheConfig(str(tmp_path)))
    loss_and_gradients(model, batch)
    cache.refresh()
    (shard,) = tmp_path.rglob("*.safetensors")
    content = bytearray(shard.read_bytes())
    if damage == "cut":
        shard.write_bytes(content[:-100])
    elif damage == "flipped":
        content[-5] ^= 1
        shard.write_bytes(content)
    elif damage == "no file":
        shard.unlink()
    else:
        shard.write_bytes(b"not a shard")
    with caplog.at_level(logging.WARNING):
        assert equal(loss_and_gradients(model, batch), expected)
    assert "damaged" in caplog.text
    cache.remove()
    again = PrefixCache(model, 2, CacheConfig(str(tmp_path)))  # what was rebuilt is whole
    assert equal(loss_and_gradients(model, batch), expected) and again.n_hits == 1


def test_what_a_killed_writer_left_is_cleared_away(tmp_path):
    (tmp_path / ".0-00003.tmp").write_bytes(b"half a sh")
    (tmp_path / ".1-00000.tmp").write_bytes(b"another process may be at it")
    HiddenStateStore(tmp_path, rank=0)
    assert [path.name for path in tmp_path.iterdir()] == [".1-00000.tmp"]


@pytest.mark.slow
def test_a_full_disk_stops_storing_with_one_message_and_training_goes_on(
    tmp_path, small_shards, monkeypatch, caplog
):
    def no_room(tensors, path, metadata):
        path.write_bytes(b"half a sh")
        raise SafetensorError("No space left on device (os error 28)")

    plain = run(tmp_path / "plain")
    monkeypatch.setattr(store, "save_file", no_room)
    with caplog.at_level(logging.WARNING):
        cached = run(tmp_path / "cached", cache=tmp_path / "cache")
    assert same_run(cached, plain)
    assert caplog.text.count("No space left") == 1
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_the_limit_holds_and_says_so(tmp_path, small_shards, caplog):
    limit = {"cache": tmp_path / "cache", "cache_max_gib": 8 * 16 * 32 * 4 * 1.5 / 2**30}
    with caplog.at_level(logging.WARNING):
        cached = run(tmp_path / "cached", **limit)
    assert same_run(cached, run(tmp_path / "plain"))
    assert caplog.text.count("reached its limit") == 1
    held = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.safetensors"))
    assert 0 < held < 1.3 * limit["cache_max_gib"] * 2**30


def test_processes_see_each_others_shards(tmp_path):
    one, other = (HiddenStateStore(tmp_path, rank) for rank in (0, 1))
    tensor = torch.randn(3, 4)
    one.put("k", tensor)
    one.flush()
    assert other.get(["k"]) is None
    other.refresh()
    assert torch.equal(other.get(["k"])[0], tensor)


def test_a_row_costs_no_more_to_read_in_a_large_cache(tmp_path):
    """Every read parses the names of a whole shard, so narrow rows must not fill it by size."""
    cache, n_rows = HiddenStateStore(tmp_path), 3 * store.SHARD_ROWS
    tensors = {f"{number:032x}": torch.full((1, 2), float(number)) for number in range(n_rows)}
    for key, tensor in tensors.items():
        cache.put(key, tensor)
    held = [len(list(safe_open(p, "pt").keys())) for p in tmp_path.glob("*.safetensors")]
    assert held == [store.SHARD_ROWS] * 3
    keys = list(tensors)[:: store.SHARD_ROWS // 2]
    assert all(torch.equal(row, tensors[k]) for row, k in zip(cache.get(keys), keys, strict=True))


DDP_SCRIPT = """
import sys, torch
sys.path.insert(0, {tests!r})
from test_prefix_cache import run, same_run

settings = dict(ddp_find_unused_parameters=False, ddp_backend="gloo", save_strategy="no",
                per_device_train_batch_size=4)
plain = run({folder!r} + "/plain", **settings)
cached = run({folder!r} + "/cached", cache={folder!r} + "/cache", **settings)
assert torch.distributed.get_world_size() == 2
assert same_run(cached, plain)
# Rows are dealt out anew in every epoch: each process needs what the other has stored.
assert cached[2].prefix_cache.n_hits > 40, cached[2].prefix_cache.n_hits
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_share_the_cache_and_give_the_same_bits(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(DDP_SCRIPT.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    done = subprocess.run(
        [*command, str(script)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    names = {path.name for path in (tmp_path / "cache").rglob("*.safetensors")}
    assert {"0-00000.safetensors", "1-00000.safetensors"} <= names


def test_reasons_to_refuse(tmp_path):
    config = CacheConfig(str(tmp_path))
    with pytest.raises(CacheError, match="no frozen prefix"):
        PrefixCache(build_model("llama_tied"), 0, config)
    with pytest.raises(CacheError, match="below block 2 are trained"):
        PrefixCache(build_model("llama_tied"), 2, config)
    torch.manual_seed(0)
    gpt2 = AutoModelForCausalLM.from_config(GPT2Config(n_embd=32, n_layer=3, n_head=4))
    with pytest.raises(CacheError, match="transformer.drop has dropout 0.1"):
        PrefixCache(frozen(gpt2), 2, config)
    with pytest.raises(CacheError, match="bfloat16"):
        CacheConfig(str(tmp_path), "int8")


@pytest.mark.slow
def test_a_prefix_that_is_random_in_training_is_refused(tmp_path):
    """BioGPT keeps its dropout rates as numbers; NEFTune adds noise in a hook."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4)
    config = BioGptConfig(vocab_size=97, attention_probs_dropout_prob=0.0, **sizes)
    dropping = frozen(AutoModelForCausalLM.from_config(config))
    modes = [module.training for module in dropping.modules()]
    with pytest.raises(CacheError, match="differs from pass to pass"):
        PrefixCache(dropping, 2, CacheConfig(str(tmp_path)))
    assert [module.training for module in dropping.modules()] == modes
    with pytest.raises(CacheError, match="neftune_noise_alpha"):
        run(tmp_path, cache=tmp_path / "cache", neftune_noise_alpha=5.0)
    run(tmp_path, neftune_noise_alpha=5.0)


def test_blocks_that_pass_on_more_than_hidden_states_are_refused(tmp_path):
    model = frozen(build_model("llama_tied"))
    first, last = model.model.layers[0], model.model.layers[2]
    seen = []
    first.register_forward_hook(lambda m, a, output: seen.append(output.mean()))
    last.mlp.register_forward_hook(lambda m, a, output: output + seen[-1])
    with pytest.raises(CacheError, match="more than their hidden states"):
        PrefixCache(model, 2, CacheConfig(str(tmp_path)))
