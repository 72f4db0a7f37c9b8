"""lm-evaluation-harness: its tasks on a model in memory, and probes as requests to it.

Comes in: a model with its tokenizer and names of tasks; or a probe. Goes out: ``TaskScores``, with
a value for every document; or what the harness is asked. It patches nothing in the harness.
"""

from gradloc.evaluation.lm_eval.request import harness_request
from gradloc.evaluation.lm_eval.running import BATCH_SIZE, run_tasks
from gradloc.evaluation.lm_eval.scores import TaskMetric, TaskScores

__all__ = ["BATCH_SIZE", "TaskMetric", "TaskScores", "harness_request", "run_tasks"]
