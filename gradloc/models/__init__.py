"""From the name of a model to the model and its tokenizer.

Comes in: a Hugging Face folder, a hub id, a ``.gguf`` file, a PEFT adapter, or
``smollm2-135m-instruct`` for the packaged weights. Goes out: an ordinary model that trains and
saves, and its fast tokenizer. It knows nothing of layers or plans.
"""

from gradloc.models.loading import DTYPES, load_model, load_tokenizer, same_tokenizer
from gradloc.models.sources import PACKAGED, ModelSource, describe, fingerprint, resolve

__all__ = [
    "DTYPES",
    "PACKAGED",
    "ModelSource",
    "describe",
    "fingerprint",
    "load_model",
    "load_tokenizer",
    "resolve",
    "same_tokenizer",
]
