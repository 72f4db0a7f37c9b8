"""Files, sums, memory and progress. Nothing here knows what gradloc is for."""
