"""`python -m verisight`, for launchers: `torchrun --nproc-per-node 2 -m verisight train RECIPE`."""

from verisight.cli import main

main()
