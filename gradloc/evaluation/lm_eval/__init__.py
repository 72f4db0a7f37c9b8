"""lm-evaluation-harness: its tasks on a model in memory, and probes as requests to it."""

from gradloc.evaluation.lm_eval.harness_run import BATCH_SIZE, run_tasks
from gradloc.evaluation.lm_eval.request import harness_request
from gradloc.evaluation.lm_eval.task_scores import TaskMetric, TaskScores

__all__ = ["BATCH_SIZE", "TaskMetric", "TaskScores", "harness_request", "run_tasks"]
