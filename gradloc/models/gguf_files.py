"""GGUF files, read faster and more quietly than Transformers reads them by itself."""

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast

from gradloc.errors import ModelError


@contextmanager
def reading_gguf(name: str) -> Iterator[None]:
    """Let Transformers read a GGUF file once and quietly.

    Transformers 5.23 parses the file's header (2 s for a vocabulary of 49,152) once for the
    configuration and again for the weights, rebuilds gguf's table of tensor names for each of
    the model's modules (397 times for SmolLM2-135M), and always shows a progress bar.
    """
    try:
        import gguf
    except ImportError as error:
        raise ModelError(
            f"{name}: reading GGUF files needs the package gguf: pip install gguf"
        ) from error
    try:
        from transformers import modeling_gguf_pytorch_utils as reading
    except ImportError:  # a Transformers that no longer reads in this way needs no help
        reading = None

    class Reader(gguf.GGUFReader):
        def _get(self, *args, **kwargs):
            # Slicing a memory map is several times slower than slicing the array under it.
            self.data = np.asarray(self.data)
            return super()._get(*args, **kwargs)

    replacements = [
        (gguf, "GGUFReader", functools.cache(Reader)),
        (gguf, "get_tensor_name_map", functools.cache(gguf.get_tensor_name_map)),
    ]
    if tqdm := getattr(reading, "tqdm", None):
        replacements.append((reading, "tqdm", functools.partial(tqdm, disable=True)))
    with ExitStack() as stack:
        for module, attribute, value in replacements:
            stack.callback(setattr, module, attribute, getattr(module, attribute))
            setattr(module, attribute, value)
        yield


def split_digits(tokenizer: PreTrainedTokenizerFast) -> None:
    """Take numbers apart digit by digit, as SmolLM2's own tokenizer does.

    Transformers 5.23 does not know the rule that the GGUF file names (``smollm``), which shows
    in blanks before a number.
    """
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
