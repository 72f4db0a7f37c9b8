"""The same short training by the Trainer with callbacks, and by a plain loop.

Comes in: a loss to add, or callbacks that should amount to it. Goes out: trained models. Rows are
taken in order, so that the two see the same batches.
"""

import torch
from conftest import build_model, plan_for, training_arguments
from torch.utils.data import Dataset
from transformers import Trainer

from gradloc import GradLocCallback
from gradloc.models.units import find_units
from gradloc.training.methods.base import TrainContext

RATE = {"adamw_torch": 1e-3, "sgd": 1e-2}
# Adam divides rounding by rounding where a gradient is all but zero, unless epsilon is above it.
EPSILON = 1e-4
TEXTS = ["The capital of Norway is Oslo.", "Water boils at a hundred degrees.", "x", "Two and two."]


def token_rows(*lengths):
    """Random token rows of these lengths."""
    generator = torch.Generator().manual_seed(3)
    return [tuple(torch.randint(0, 94, (n,), generator=generator).tolist()) for n in lengths]


class Rows(Dataset):
    """Random rows; the first token has no label, so labelled tokens are those predicted."""

    def __init__(self, n=24):
        self.ids = torch.randint(0, 94, (n, 10), generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        labels = self.ids[index].clone()
        labels[0] = -100
        return {"input_ids": self.ids[index], "labels": labels}


def arguments(folder, **changes):
    """Arguments of four steps of four rows at a constant rate."""
    given = dict(
        per_device_train_batch_size=4,
        max_steps=4,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        adam_epsilon=EPSILON,
        weight_decay=0.1,
        max_grad_norm=0.0,
        logging_steps=1,
        seed=0,
        train_sampling_strategy="sequential",
    )
    given |= changes
    given.setdefault("learning_rate", RATE[given["optim"]])
    return training_arguments(folder, **given)


def by_trainer(folder, model, callbacks, plan=None, resume=None, tokenizer=None, **changes):
    """A Trainer that has trained ``model`` with callbacks, and with a plan where one is given."""
    freezing = [GradLocCallback(plan)] if plan else []
    trainer = Trainer(
        model,
        args=arguments(folder, **changes),
        train_dataset=Rows(),
        processing_class=tokenizer,
        callbacks=[*freezing, *callbacks],
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def by_hand(model, extra, plan=None, n_steps=4, n_rows=4, optim="adamw_torch", clip=0.0):
    """``model`` trained on its mean loss a token plus ``extra(model, step)``."""
    trained = {
        name: parameter
        for name, parameter in model.named_parameters()
        if plan is None or name.startswith(tuple(u for u, s in plan.scale.items() if s > 0))
    }
    # The norm that feeds a sublayer belongs to its unit.
    for unit in find_units(model) if plan else ():
        if plan.scale[unit.name] > 0:
            trained |= unit.parameters
    decayed = [p for n, p in trained.items() if "norm" not in n]
    plain = [p for n, p in trained.items() if "norm" in n]
    groups = [
        {"params": decayed, "weight_decay": 0.1},
        {"params": plain, "weight_decay": 0.0},
    ]
    if optim == "sgd":
        optimizer = torch.optim.SGD(groups, lr=RATE[optim])
    else:
        optimizer = torch.optim.AdamW(groups, lr=RATE[optim], eps=EPSILON)
    rows = Rows()
    model.train()
    for step in range(n_steps):
        batch = [rows[i % len(rows)] for i in range(step * n_rows, (step + 1) * n_rows)]
        ids = torch.stack([row["input_ids"] for row in batch])
        labels = torch.stack([row["labels"] for row in batch])
        loss = model(input_ids=ids, labels=labels).loss + extra(model, step)
        gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        for parameter, gradient in zip(trained.values(), gradients, strict=True):
            parameter.grad = gradient
        if clip:
            torch.nn.utils.clip_grad_norm_(list(trained.values()), clip)
        optimizer.step()
    return model


def context_for(folder, tokenizer, model=None, **changes):
    """The context of a tiny model whose plan trains the chosen units."""
    model = model or build_model("llama_tied")
    given = {"reference": TEXTS, "max_length": 16} | changes
    return TrainContext(model, tokenizer, plan_for(model), arguments(folder), **given)


def largest_gap(model, other):
    """Largest difference between two models' weights."""
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def moved(model, kind="llama_tied"):
    """Names of parameters that differ from those of a fresh model."""
    fresh = dict(build_model(kind).named_parameters())
    return {n for n, p in model.named_parameters() if not torch.equal(p, fresh[n])}
