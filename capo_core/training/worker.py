"""One of the processes of a training: `python -m capo_core.training.worker FOLDER`, started by `launch`."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from capo_core.models import choose_device
from capo_core.progress import silent
from capo_core.training.capo import train_capo
from capo_core.training.job import ENDS_WITH_STDIN, CAPOJob, ProgressFile, keep_warnings, read_job, write_result
from capo_core.training.ranks import join_process_group, leave_process_group, own_rank, wait_for_all
from capo_core.training.sft import train_sft


def train_share(folder: Path) -> None:
    """Train what the folder's job says, together with the other processes; the first writes the result."""
    job, tables = read_job(folder)
    if "LOCAL_RANK" in os.environ:
        join_process_group(choose_device(job.settings.device))
    is_first = own_rank() == 0
    if is_first:
        keep_warnings(folder, logging.getLogger("capo_core"))
    common = {
        "seed": job.seed,
        "output_dir": job.output_dir,
        "checkpoint_dir": job.checkpoint_dir,
        "progress": ProgressFile(folder) if is_first else silent,
    }
    base = (tables["data"], job.model, job.settings, job.adapter)
    if isinstance(job, CAPOJob):
        result = train_capo(
            *base, job.config, sft_adapter_dir=job.sft_adapter_dir, reference=tables.get("reference"), **common
        )
    else:
        result = train_sft(*base, job.config, **common)
    if is_first:
        write_result(folder, result)
    wait_for_all()  # the caller reads the result when the processes of its machine have ended
    leave_process_group()


def _end_with_parent() -> None:
    """End this process when its standard input does, which is when the process that started the training is gone."""

    def wait() -> None:
        # Not through sys.stdin, whose lock would be held when the interpreter shuts down.
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@record
def main() -> None:
    """Train the share of the folder named on the command line."""
    if ENDS_WITH_STDIN in os.environ:
        _end_with_parent()
    train_share(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
