"""A campaign's workers as the array job of a batch system: its script, its submission, and when it ends."""

import os
import re
import subprocess
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Literal

from rtsx.errors import CampaignError
from rtsx.pages import render_text

TIME_IS_OVER = 75
"""Exit status of a worker whose time ends before the campaign: EX_TEMPFAIL of sysexits.h, "start it again"."""
_MARGIN = timedelta(minutes=2)
"""By which a worker ends before its job would be ended."""
_END_MARGIN = timedelta(minutes=1)
"""Likewise of one that was started without a time in somebody's own script."""
_COMMANDS = {"slurm": "sbatch", "pbs": "qsub"}
"""What takes a script on its standard input and prints the job's id."""


def slurm_end() -> datetime | None:
    """Return a minute before the end of the Slurm job that this process belongs to; None where it belongs to none."""
    job, end = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_JOB_END_TIME", "")
    if end.isdecimal():
        return datetime.fromtimestamp(int(end), UTC) - _END_MARGIN
    if not job:
        return None
    # Before version 23.02, Slurm does not tell its jobs.
    command = ["squeue", "--noheader", f"--jobs={job}", "--format=%e"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
        return datetime.fromisoformat(text).astimezone(UTC) - _END_MARGIN
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        warnings.warn(
            f"Slurm does not say when job {job} ends ({error}), so this worker may be ended within a cell. Say it with --until.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """An array job, each member of which is one process of `rtsx campaign work`.

    A member ends two minutes before its time. With Slurm it then queues itself again, until every cell is done; with PBS, which
    lets no job do that, the array is submitted again.

    Examples
    --------
    >>> job = BatchJob(system="slurm", campaign="s3://maps/arctic", workers=40, time=timedelta(hours=12), gpus=1)
    >>> print(job.script)
    #!/bin/bash
    #SBATCH --job-name=rtsx
    #SBATCH --array=0-39
    #SBATCH --time=720
    #SBATCH --gpus-per-node=1
    #SBATCH --nodes=1
    #SBATCH --ntasks=1
    #SBATCH --requeue
    #SBATCH --open-mode=append
    until=$(date -Iseconds -d '+43080 seconds')
    rtsx campaign work s3://maps/arctic --until "$until" --gpu 1
    status=$?
    if [ "$status" -eq 75 ]; then
        scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
    fi
    exit "$status"
    <BLANKLINE>

    Raises
    ------
    CampaignError
        A number is out of its range, or a text is more than a line.
    """

    system: Literal["slurm", "pbs"]
    """What runs it."""
    campaign: str
    """YAML file or output of the campaign, as the nodes see it."""
    workers: int
    """Members of the array."""
    time: timedelta
    """Wall time of a member; above three minutes."""
    year: int | None = None
    """Year of the map; None for the file's, or an output's newest."""
    gpus: int = 0
    """GPUs of a member, which runs a process for each."""
    cpus: int | None = None
    """Processors of a member; None for the system's own default, as of all below."""
    memory_bytes: int | None = None
    partition: str | None = None
    """Partition (Slurm) or queue (PBS)."""
    account: str | None = None
    container: str | None = None
    """Image of Apptainer that holds rtsx."""
    fetched: str | None = None
    """Store of fetched pixels that images are read from; None for their sources."""
    trust: bool = False
    """Whether model files that can run code are read, where `campaign` is an output; a YAML file says so itself."""
    setup: Sequence[str] = ()
    """Lines of shell before the work, such as ``source ~/rtsx/bin/activate``."""
    options: Sequence[str] = ()
    """Further options of the system, such as ``--constraint=a100``."""
    logs: str | None = None
    """Folder for what members print, which has to be there."""

    def __post_init__(self) -> None:
        """Refuse what no batch system would take."""
        if self.system not in _COMMANDS:
            raise CampaignError(f"The batch system is {' or '.join(_COMMANDS)}, in small letters; got {self.system!r}.")
        if self.workers < 1 or self.gpus < 0 or (self.cpus is not None and self.cpus < 1):
            raise CampaignError(
                f"workers and cpus are at least 1, and gpus 0; got {self.workers}, {self.cpus} and {self.gpus}."
            )
        if self.time <= _MARGIN + timedelta(minutes=1):
            raise CampaignError(
                f"A member needs more than three minutes, as it ends two before its time; got {self.time}."
            )
        for text in (self.partition, self.account, self.logs, *self.options):
            if text is not None and not re.fullmatch(r"[^\n\r]+", text):
                raise CampaignError(f"An option of a batch system is one line; got {text!r}.")

    @property
    def script(self) -> str:
        """The script, for bash."""
        facts = {
            "job": self,
            "minutes": ceil(self.time / timedelta(minutes=1)),
            "seconds": int((self.time - _MARGIN).total_seconds()),
            "megabytes": None if self.memory_bytes is None else ceil(self.memory_bytes / 2**20),
            "time_is_over": TIME_IS_OVER,
        }
        return render_text("batch.sh", facts) + "\n"

    def submit(self) -> str:
        """Hand the script to the batch system of this machine; returns what it answers, such as the id of the job.

        Raises
        ------
        CampaignError
            There is none, or it refuses the script.
        """
        command = _COMMANDS[self.system]
        try:
            process = subprocess.run([command], input=self.script, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise CampaignError(
                f"This machine has no {command}. Submit from a login node, or print the script with --dry-run."
            ) from None
        if process.returncode:
            raise CampaignError(f"{command} refuses the job: {process.stderr.strip() or process.stdout.strip()}")
        return process.stdout.strip()
