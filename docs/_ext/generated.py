"""Tables of the documentation that are read from the code, so that they cannot drift.

A line ``<!-- generated: NAME -->`` in a page is replaced by the output of the function of that
name in ``GENERATORS`` while the page is read.
"""

import contextlib
import dataclasses
import functools
import inspect
import io
import json
import re
import textwrap
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gradloc.config import recipe

# Results of runs that the documentation shows, as the commands wrote them, without single items.
STORED = Path(__file__).parents[1] / "stored"
# Arms of the stored sweep on the page of new facts; the others are on the page of what failed.
_PARTS = (
    "protected",
    "protected_kl_always",
    "protected_every_layer",
    "protected_no_kl",
    "protected_no_kl_half",
    "protected_no_facts",
    "protected_no_facts_most",
    "protected_momentum",
    "protected_momentum_most",
    "projected",
    "projected_full",
    "unprojected_interpolated",
    "interference_ratio",
)
_CONTROLS = (
    "full_no_momentum",
    "full_interpolated",
    "reference_kl",
    "replay",
    "rgn_above_mean",
    "last_third_mlp",
    "random_k",
    "lora",
)
_MARKER = re.compile(r"^<!-- generated: (\w+) -->$", flags=re.MULTILINE)
_ENTRY = re.compile(r"^ {4}((?:\w+, )*\w+): (.*(?:\n {5,}.*)*)", flags=re.MULTILINE)


def argument_texts(thing: type) -> dict[str, str]:
    """Argument name -> its description in the Google style docstring of a class."""
    found = {}
    # Inherited fields are described where they are defined.
    for owner in reversed(
        [cls for cls in thing.__mro__ if dataclasses.is_dataclass(cls)] or [thing]
    ):
        text = inspect.cleandoc(owner.__doc__).split("Args:\n", 1)[-1]
        for names, description in _ENTRY.findall(text):
            found |= dict.fromkeys(names.split(", "), " ".join(description.split()))
    return found


def recipe_keys() -> str:
    """One table for the recipe and one for each section of it."""
    return "\n".join(_section("", recipe.Recipe))


def _section(path: str, cls: type) -> list[str]:
    texts, hints = argument_texts(cls), get_type_hints(cls)
    summary = inspect.getdoc(cls).split("\n\n")[0]
    rows, below = [], []
    for item in dataclasses.fields(cls):
        inner, suffix = _section_class(hints[item.name])
        if inner:
            key = f"{path}.{item.name}{suffix}".lstrip(".")
            cells = ["section", "", f"See [`{key}`](#{_anchor(key)})."]
            below += _section(key, inner)
        else:
            cells = [type_words(hints[item.name]), _default(item), _markdown(texts[item.name])]
        rows.append((f"`{item.name}`", *cells))
    table = _table(("key", "type", "default", "meaning"), rows)
    return [f"### `{path}`" if path else "### Top level", "", summary, "", table, "", *below]


def _section_class(hint: Any) -> tuple[type | None, str]:
    """The dataclass that a key holds, and what stands for its names or numbers in a key path."""
    if dataclasses.is_dataclass(hint):
        return hint, ""
    for item in get_args(hint):
        if dataclasses.is_dataclass(item):
            return item, ".<name>" if get_origin(hint) is dict else ".<n>"
    return None, ""


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w-]", "", heading.lower())


def type_words(hint: Any) -> str:
    """A type in the words of YAML."""
    words = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        type(None): "empty",
        Any: "anything",
    }
    if hint in words:
        return words[hint]
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return " or ".join(f"`{item}`" for item in arguments)
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(type_words(item) for item in arguments)
    if get_origin(hint) is tuple:
        return f"list: {type_words(arguments[0])}"
    if get_origin(hint) is dict:
        return f"mapping: name to {type_words(arguments[1])}"
    raise TypeError(f"no words for the type {hint!r} of a recipe key; add them here")


def _default(item: dataclasses.Field) -> str:
    if item.default is dataclasses.MISSING:
        factory = item.default_factory
        return {dict: "`{}`", dataclasses.MISSING: "required"}.get(factory, "")
    value = "[]" if item.default == () else json.dumps(item.default)
    return "empty" if item.default is None else f"`{value}`"


def policies() -> str:
    """The selection policies with their options."""
    from gradloc.localization.policies import DEFAULT_POLICY, POLICIES

    rows = []
    for name, function in POLICIES.items():
        parameters = inspect.signature(function).parameters.values()
        options = [
            f"`{item.name}` ({item.default})"
            for item in parameters
            if item.kind is item.KEYWORD_ONLY
        ]
        label = f"`{name}`" + (" (the default)" if name == DEFAULT_POLICY else "")
        rows.append((label, ", ".join(options), _first_line(function)))
    return _table(("policy", "options (default)", "what it trains"), rows)


def methods() -> str:
    """The training methods with their options."""
    from gradloc.training.methods.method_table import METHODS

    rows = []
    for name, method in METHODS.items():
        texts = argument_texts(method)
        for place, item in enumerate(dataclasses.fields(method)):
            label = f"`{name}`" if place == 0 else ""
            rows.append((label, f"`{item.name}`", _default(item), _markdown(texts[item.name])))
    return _table(("method", "option", "default", "meaning"), rows)


def config_fields() -> str:
    """The fields of the configuration."""
    from gradloc.config.default import GradLocConfig

    texts = argument_texts(GradLocConfig)
    rows = [
        (f"`{item.name}`", f"`{item.default!r}`", _markdown(texts[item.name]))
        for item in dataclasses.fields(GradLocConfig)
    ]
    return _table(("field", "default", "meaning"), rows)


def probe_fields() -> str:
    """The fields of a line of a probe file."""
    from gradloc.data.probes import Probe
    from gradloc.data.probes.parsing import CHOICES, LISTS, REQUIRED

    texts = argument_texts(Probe)
    rows = []
    for item in dataclasses.fields(Probe):
        kind = "text or list of texts" if item.name in LISTS else "text"
        kind = " or ".join(f"`{value}`" for value in CHOICES.get(item.name, ())) or kind
        default = "required" if item.name in REQUIRED else f"`{item.default}`"
        default = "empty" if item.default in ("", ()) else default
        default = "file and line" if item.name == "id" else default
        rows.append((f"`{item.name}`", kind, default, _markdown(texts[item.name])))
    return _table(("field", "value", "default", "meaning"), rows)


def sweep_keys() -> str:
    """The keys of a sweep file."""
    from gradloc.experiments.sweep.sweep_config import Sweep

    return "\n".join(_section("", Sweep))


def readers() -> str:
    """The corpus readers."""
    from gradloc.data.corpora.readers import READERS

    rows = [(f"`{name}`", _first_line(function)) for name, function in READERS.items()]
    return _table(("`corpus.source`", "what it reads"), rows)


def probe_metrics() -> str:
    """The metrics that are read off scored probes."""
    from gradloc.evaluation.metrics import PROBE_METRICS

    rows = []
    for name, metric in PROBE_METRICS.items():
        meaning = _first_line(metric.values)
        if metric.perplexity:
            each = "over entities" if metric.by_entity else "over probes"
            meaning = f"Exponential of the mean {each}: {meaning[0].lower()}{meaning[1:]}"
        rows.append((
            f"`{name}`" + (" *" if metric.usual else ""),
            metric.unit,
            "higher" if metric.higher_is_better else "lower",
            meaning,
            metric.source,
        ))  # fmt: skip
    return _table(("metric", "unit", "better", "meaning", "source"), rows)


def requests() -> str:
    """What a model is asked about probes."""
    from gradloc.evaluation.metrics import PROBE_METRICS
    from gradloc.evaluation.requests import REQUESTS

    rows = [
        (
            _first_line(function),
            ", ".join(f"`{name}`" for name, m in PROBE_METRICS.items() if m.request == request),
        )
        for request, function in REQUESTS.items()
    ]
    return _table(("what the model is asked", "for"), rows)


def benchmarks() -> str:
    """The forms of downloaded files that are read as probes."""
    from gradloc.data.benchmarks import BENCHMARKS
    from gradloc.evaluation.suites import TASK_METRICS

    rows = []
    for name, item in BENCHMARKS.items():
        metrics = [
            f"`{metric}`"
            for task, names in TASK_METRICS.items()
            for metric in names
            if task.startswith(name)
        ]
        usual = ", ".join(dict.fromkeys(metrics)) or "the usual ones"
        rows.append((f"`{name}`", item.about, ", ".join(item.files), usual, item.source))
    return _table(("`format`", "what it reads", "files", "metrics", "published"), rows)


def suite_keys() -> str:
    """One table for the suite and one for each section of it."""
    from gradloc.evaluation.suites import SuiteConfig

    return "\n".join(_section("", SuiteConfig))


def shipped_suites() -> str:
    """The suites that come with gradloc."""
    from gradloc.config.shipped import shipped_names, shipped_path
    from gradloc.config.yaml_source import read_yaml

    rows = []
    for name in shipped_names("suites"):
        data = read_yaml(shipped_path("suites", name).read_text(encoding="utf-8")).data
        needs = "nothing" if data.get("recipe") else "your files, see its head"
        rows.append((f"`{name}`", data["description"], needs))
    return _table(("suite", "what it asks", "needs"), rows)


def stored_results() -> str:
    """Every metric of the stored evaluation of the quickstart's arms: before, after, change."""
    from gradloc.evaluation.results import EvalResult
    from gradloc.report.formatting import by_unit, interval, unit_name
    from gradloc.report.metric_names import metric_label

    result = EvalResult.load(STORED / "quickstart-temporal-full.json")
    arms = ("full", "interference_ratio")
    head = ["metric", "unit", "n", "base"]
    for arm in arms:
        head += [arm, "change"]
    rows = []
    for name, base in result.baseline_scores.items():
        cells = [
            metric_label(name),
            unit_name(base.unit, difference=False),
            f"{base.n:,}",
            by_unit(base.value, base.unit),
        ]
        for arm in (result.arms[arm] for arm in arms):
            kind = "uptake" if name in arm.uptake else "forgetting"
            change = getattr(arm, kind)[name]
            ends = interval(change)
            cells += [
                by_unit(arm.scores[name].value, base.unit),
                f"{'gained' if kind == 'uptake' else 'lost'} "
                f"{by_unit(change.value, change.unit)}" + (f" [{ends}]" if ends else ""),
            ]
        rows.append(tuple(cells))
    ratios = [result.arms[arm].forgetting["fuar"] for arm in arms]
    cells = ["facts lost for each gained (FUAR)", "ratio", f"{ratios[0].n:,}", ""]
    for ratio in ratios:
        ends = interval(ratio)
        cells += [by_unit(ratio.value, "ratio"), f"[{ends}]" if ends else ratio.note]
    return _table(tuple(head), [*rows, tuple(cells)])


def stored_frontier() -> str:
    """New facts: the default, its parts and the controls."""
    return _frontier_tables("frontier.json", "invented", [*_PARTS, *_CONTROLS])


def stored_frontier_rest() -> str:
    """New facts: all other arms."""
    return _frontier_tables("frontier.json", "invented", without=[*_PARTS, *_CONTROLS])


def stored_unseen() -> str:
    """New facts, with known facts that no choice was made by."""
    return _frontier_tables("frontier.json", "unseen")


def stored_passages() -> str:
    """Invented passages."""
    return _frontier_tables("frontier.json", "passages")


def stored_edits() -> str:
    """Facts that are changed."""
    return _frontier_tables("edits.json", "counterfact")


@functools.cache
def _frontier(name: str) -> Any:
    """A stored sweep, compared with its reference arm."""
    from gradloc.experiments.sweep.frontiers import find_frontier
    from gradloc.experiments.sweep.sweep_record import SweepRecord

    return find_frontier(SweepRecord.load(STORED / name))


def _frontier_tables(
    name: str, corpus: str, arms: Sequence[str] = (), without: Sequence[str] = ()
) -> str:
    """Of one corpus of a stored sweep: forgetting against full training's at equal uptake."""
    from gradloc.report.formatting import MISSING, learning_rate, number, percent, share_text
    from gradloc.report.metric_names import metric_label

    frontier = _frontier(name)
    found_corpus = frontier.corpora[corpus]
    full = found_corpus.arms[frontier.line]
    others = {
        arm: found_corpus.arms[arm]
        for arm in arms or found_corpus.arms
        if arm not in (frontier.line, *without)
    }
    parts = [
        f"Best uptake of `{frontier.line}` ({metric_label(frontier.axis)}): "
        f"{_figure(found_corpus.best_uptake)} nats, at rate "
        f"{learning_rate(found_corpus.best_rate)}."
    ]
    for loss, reference in full.forgetting.items():
        shares = [at.share for at in reference.at_uptake]
        head = (metric_label(loss), *(f"at {share_text(share)}" for share in shares), "mean")
        rows = [
            (
                f"`{arm}`",
                *(_figure(at.ratio) for at in found.forgetting[loss].at_uptake),
                _figure(found.forgetting[loss].mean_ratio),
            )
            for arm, found in others.items()
        ]
        parts.append(_table(head, rows))
    rows = [
        (
            f"`{arm}`",
            _figure(found.uptake_share),
            MISSING if found.trainable_fraction is None else percent(found.trainable_fraction),
            number(found.time_ratio.value),
            ", ".join(map(str, found.seeds)),
        )
        for arm, found in others.items()
    ]
    head = ("", "best uptake / full's", "parameters trained", "time / full's", "seeds")
    parts.append(_table(head, rows))
    return "\n\n".join(parts)


def stored_projections() -> str:
    """Every run of the stored look at the projection: uptake, and forgetting / the line's there."""
    from gradloc.report.formatting import learning_rate, number
    from gradloc.report.metric_names import metric_label

    frontier = _frontier("frontier-projections.json")
    (corpus,) = frontier.corpora.values()
    losses = list(corpus.arms[frontier.line].forgetting)
    head = ("arm", "learning rate", "uptake, nats", *(metric_label(loss) for loss in losses))
    rows = [
        (
            f"`{arm}`",
            learning_rate(point.learning_rate),
            number(point.metrics[frontier.axis].value),
            *(_figure(point.forgetting_ratio[loss]) for loss in losses),
        )
        for arm, found in corpus.arms.items()
        if arm != frontier.line
        for point in found.points
    ]
    return _table(head, rows)


def stored_continual() -> str:
    """The stored stream: measures of every arm, then the score matrix of each."""
    from gradloc.experiments.continual.continual_figures import continual_figures
    from gradloc.experiments.continual.continual_page import matrix_table, summary_table
    from gradloc.experiments.continual.continual_record import ContinualRecord
    from gradloc.report.formatting import figure_text
    from gradloc.report.table import markdown_table

    record = ContinualRecord.load(STORED / "continual.json")
    figures = continual_figures(record)
    main = next(iter(figures.arms))
    parts = [markdown_table(summary_table(figures))]
    differences = [
        (f"`{name}`", *(figure_text(found[key]) for key in ("uptake", "known_facts")))
        for name, found in paired_differences(record, main).items()
    ]
    head = (f"`{main}` against", "uptake, nats more", "known facts, % points lost less")
    parts.append(_table(head, differences))
    parts.append("<details><summary>Score matrix of every arm</summary>")
    for name, arm in figures.arms.items():
        matrix = matrix_table(figures, arm, with_intervals=False)
        parts += [f"**`{name}`**", markdown_table(matrix)]
    parts.append("</details>")
    return "\n\n".join(parts)


def paired_differences(record: Any, main: str) -> dict[str, dict[str, Any]]:
    """One arm against each other one after the last stage, over the same items and resamples.

    Other arm -> how much more ``main`` took up (mean over periods, nats per token), and how much
    more known facts the other one lost. Above 0 is good for ``main`` in both. Arms with other
    stages than ``main`` are left out.
    """
    from gradloc.evaluation.bootstrap import figure
    from gradloc.experiments.continual.continual_figures import estimates, figure_of_mean
    from gradloc.experiments.continual.continual_record import uptake_metric

    def difference(arm: str, other: str, metric: str, key: str) -> Any:
        one, two = (record.arms[name].stages[-1].metrics[metric] for name in (arm, other))
        values = tuple(a - b for a, b in zip(one.values, two.values, strict=True))
        return estimates(record, [dataclasses.replace(one, values=values)], key)[0]

    stages = [stage.period for stage in record.arms[main].stages]
    found = {}
    for other, arm in record.arms.items():
        if other == main or [stage.period for stage in arm.stages] != stages:
            continue
        gained = [difference(main, other, uptake_metric(name), name) for name in record.columns]
        lost = difference(other, main, "known_facts", "known_facts")
        found[other] = {
            "uptake": figure_of_mean(gained),
            "known_facts": figure(lost, "fraction", True),
        }
    return found


def training_arguments() -> str:
    """The TrainingArguments that a recipe may not set."""
    from gradloc.config.checks import SET_BY_GRADLOC

    return _table(("key", "instead"), [(f"`{k}`", v) for k, v in SET_BY_GRADLOC.items()])


def errors() -> str:
    """The named failures."""
    from gradloc import errors as module

    classes = [item for item in vars(module).values() if inspect.isclass(item)]
    rows = [
        (f"`{item.__name__}`", _first_line(item))
        for item in classes
        if item not in (module.GradlocError, module.ProblemsError)
    ]
    return _table(("error", "when"), rows)


def commands() -> str:
    """The help text of every command."""
    from gradloc.cli.main import COMMANDS, command, overview
    from gradloc.cli.options import read_options

    texts = {"gradloc": "\n".join(map(_wrapped, overview().splitlines()))}
    for name in COMMANDS:
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            read_options(command(name), f"gradloc {name}", ["--help"])
        texts[f"gradloc {name}"] = text.getvalue().rstrip()
    lines = [
        line
        for name, text in texts.items()
        for line in (f"### `{name}`", "", "```text", text, "```", "")
    ]
    return "\n".join(lines)


def _wrapped(line: str) -> str:
    """A line of the overview, its command's summary in a column of its own."""
    if not line.startswith("  "):
        return line
    return textwrap.fill(line, 88, subsequent_indent=" " * 23)


def public_names() -> str:
    """Autodoc entries of everything in ``gradloc.__all__``."""
    import gradloc

    functions, classes, others = [], [], []
    for name in gradloc.__all__:
        thing = getattr(gradloc, name)
        if inspect.isfunction(thing):
            functions.append(f".. autofunction:: gradloc.{name}")
        elif inspect.isclass(thing) and issubclass(thing, Exception):
            others.append(f".. autoexception:: gradloc.{name}")
        elif inspect.isclass(thing):
            # Fields are documented by the docstring; listing them again would show them twice.
            methods = [
                m
                for m, value in vars(thing).items()
                if not m.startswith(("_", "on_"))
                and m != "state"
                and (inspect.isfunction(value) or isinstance(value, (property, classmethod)))
            ]
            classes.append(f".. autoclass:: gradloc.{name}\n   :members: {', '.join(methods)}")
    parts = {"Functions": functions, "Values and the callback": classes, "Errors": others}
    return "\n".join(
        f"## {title}\n\n```{{eval-rst}}\n" + "\n\n".join(entries) + "\n```\n"
        for title, entries in parts.items()
    )


def _figure(figure: Any) -> str:
    """A figure as ``0.43 [0.41 to 0.45]``."""
    from gradloc.report.formatting import interval, number

    ends = interval(figure, brackets=True).replace(" ", "\N{NO-BREAK SPACE}")
    return f"{number(figure.value)} {ends}".strip()


def _first_line(thing: Any) -> str:
    return _markdown(inspect.getdoc(thing).split("\n\n")[0].replace("\n", " "))


def _markdown(text: str) -> str:
    return text.replace("``", "`")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


GENERATORS: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (
        recipe_keys,
        policies,
        methods,
        config_fields,
        probe_fields,
        sweep_keys,
        readers,
        probe_metrics,
        requests,
        benchmarks,
        suite_keys,
        shipped_suites,
        stored_results,
        stored_frontier,
        stored_frontier_rest,
        stored_unseen,
        stored_passages,
        stored_edits,
        stored_projections,
        stored_continual,
        training_arguments,
        errors,
        commands,
        public_names,
    )
}


def fill_in(app: Any, page: str, source: list[str]) -> None:
    """Replace the markers of a page that is being read."""
    source[0] = _MARKER.sub(lambda match: GENERATORS[match[1]](), source[0])


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", fill_in)
    # The pages depend on code that Sphinx does not watch.
    app.connect("env-get-outdated", lambda app, env, *_: sorted(env.found_docs))
    return {"parallel_read_safe": True}
