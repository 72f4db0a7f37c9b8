"""The script of the documentation page, run as it stands there."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from test_callback import changed_units, write_probes
from transformers import AutoModelForCausalLM

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "callback.md"


@pytest.mark.slow
def test_the_callback_page_runs_and_trains_the_plan_alone(tmp_path, monkeypatch, tiny_checkpoint):
    script = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL).group(1)
    added = [line for line in script.splitlines() if line.endswith("# added")]
    assert 1 <= len(added) <= 3
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_checkpoint, "my-model")
    write_probes(tmp_path)
    rows = [{"text": f"The new fact number {n} is here."} for n in range(16)]
    Path("news.jsonl").write_text("\n".join(map(json.dumps, rows)))
    namespace: dict = {}
    exec(compile(script, str(PAGE), "exec"), namespace)

    model = namespace["trainer"].model
    before = AutoModelForCausalLM.from_pretrained("my-model")
    changed = changed_units(model, {n: p.detach() for n, p in before.named_parameters()})
    callback = next(
        c
        for c in namespace["trainer"].callback_handler.callbacks
        if isinstance(c, namespace["GradLocCallback"])
    )
    assert changed == set(callback.plan.trained)
    assert 0 < callback.plan.trainable_fraction < 1
    assert all(torch.isfinite(p).all() for p in model.parameters())
