"""What a recipe with an injection must satisfy before anything is run."""

from gradloc.config.recipe import Recipe
from gradloc.config.yaml_source import Source


def check_injection(source: Source, recipe: Recipe) -> None:
    """Note an injection that no training of the recipe can carry out."""
    config = recipe.injection
    if not config.n_facts:
        return
    if not config.scenarios:
        source.report("injection.scenarios", "is empty; name at least one, or remove the line")
    if recipe.corpus.streaming:
        source.report(
            "corpus.streaming",
            "a stream has no places for injected passages; set it to false, or injection.n_facts "
            "to 0",
        )
    last = config.start + config.every * (config.times - 1)
    last += min(config.spread, config.n_facts) - 1
    for name, arm in recipe.arms.items():
        training = {**recipe.training, **arm.training}
        own = f"arms.{name}." if "max_steps" in arm.training else ""
        key = f"{own}training.max_steps"
        n_steps = training.get("max_steps", -1)
        if isinstance(n_steps, int) and n_steps <= 0:
            source.report(key, "an injection needs the number of updates; set training.max_steps")
        elif isinstance(n_steps, int) and n_steps <= last:
            source.report(
                key, f"the last passage is injected at step {last}; give more than {last} updates"
            )
        strategy = training.get("train_sampling_strategy", "sequential")
        if strategy != "sequential":
            source.report(
                "training.train_sampling_strategy",
                f"'{strategy}' reads the rows in another order than that of the injection; remove "
                "this line",
            )
