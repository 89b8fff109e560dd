"""Print the tags of a step that trains, as a command of capo's for a home sees them: `python -m trained_tags HOME`."""

import sys
from pathlib import Path

from deployments.environment import prepare_environment

if __name__ == "__main__":
    prepare_environment(Path(sys.argv[1]))
    from tasks.train import train_sft_adapter

    print(*train_sft_adapter.tags)
