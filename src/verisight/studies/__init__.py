"""Studies: many alignments under one budget, from recipe to findings. Runs are made in `verisight.study`."""
