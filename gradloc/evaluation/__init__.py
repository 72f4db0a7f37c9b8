"""What a checkpoint has learned and lost: scores, figures with intervals, comparisons."""
