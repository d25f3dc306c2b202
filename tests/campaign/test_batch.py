"""When the job of a batch system ends."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rtsx.campaign.batch import slurm_end

END = datetime(2026, 11, 30, 4, 0, tzinfo=UTC)
MARGIN = timedelta(minutes=1)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Slurm job of number 7, on a machine with the programs of a folder."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)


def test_a_worker_ends_before_its_slurm_job(job: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(END.timestamp())))
    assert slurm_end() == END - MARGIN
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    monkeypatch.delenv("SLURM_JOB_ID")
    assert slurm_end() is None


@pytest.mark.parametrize("told", [f"{END.astimezone():%Y-%m-%dT%H:%M:%S}", "N/A", "", None])
def test_slurm_is_asked_where_it_does_not_tell_its_jobs(told: str | None, job: None, tmp_path: Path) -> None:
    if told is not None:
        program = tmp_path / "squeue"
        program.write_text(f'#!/bin/bash\n[ "$2" = --jobs=7 ] && echo "{told}"\n')
        program.chmod(0o755)
    if told and told[0].isdecimal():
        assert slurm_end() == END - MARGIN
        return
    with pytest.warns(RuntimeWarning, match=r"Slurm does not say when job 7 ends .* Say it with --until"):
        assert slurm_end() is None
