"""`rtsx campaign`: from a YAML file to a map, with whatever may happen on the way."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import shapely
import yaml
from distributed import LocalCluster

import rtsx
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, write_prices
from rtsx.campaign.plan import write_plan
from rtsx.campaign.recipe import Prices
from rtsx.campaign.records import RunSummary
from rtsx.cli.campaign_run import cluster_of
from rtsx.cli.console import campaign_progress
from rtsx.config import CampaignConfig, load_campaign_config
from rtsx.errors import ClusterError
from rtsx.grid.grid import cell_id
from rtsx.storage.object_store import LocalObjects
from tests import warm
from tests.campaign.records import a_failure, a_mark, a_plan
from tests.campaign.small_campaign import (
    CELLS,
    GRID,
    LAYERS,
    damage,
    make_bundle,
    region_of,
    rewrite_east,
    scale_pixels,
    write_country,
)
from tests.cli.slurm import finish_jobs, slurm
from tests.servers import script_of

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Address of a scheduler with a worker, in this process because another would import everything again."""
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of a few weights."""
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    make_bundle().save(folder)
    return folder


@pytest.fixture
def values(tmp_path: Path, bundle: Path) -> dict[str, Any]:
    """What stands in the YAML of a campaign of six cells."""
    write_country(tmp_path)
    return {
        "name": "small",
        "year": 2024,
        "region": {"wkt": shapely.to_wkt(region_of(CELLS), rounding_precision=-1)},
        "cube": {
            "grid": {"crs": GRID.crs, "resolution": GRID.resolution, "cell_size": GRID.cell_size},
            "sources": {"images": {"files": ["west.tif", "east.tif"], "layers": list(LAYERS)}},
        },
        "model": str(bundle),
        "trust": True,
        "prediction": {"tile": 48, "overlap": 16, "device": "cpu"},
        "outlines": {"min_area_m2": 300, "edge_distance": 3},
        "shard": 32,
        "chunk": 16,
        "output": "out",
        "retry": {"attempts": 2, "backoff_s": 0, "lease_s": 20},
        "prices": {"device_hour": 2, "currency": "USD"},
    }


@pytest.fixture
def config(tmp_path: Path, values: dict[str, Any]) -> Path:
    """The YAML."""
    return write(tmp_path, values)


def write(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def marks(config: Path, year: int = 2024) -> set[str]:
    return {path.stem for path in (config.parent / "out" / YearLayout(year).marks).glob("*.json")}


@pytest.mark.slow
def test_a_file_becomes_a_map_and_products(rtsx_command: Command, config: Path, scheduler: str) -> None:
    out = config.parent / "out"
    planned = rtsx_command("campaign", "plan", config, "--seconds-per-tile", "3600")
    assert planned.status == 0, planned.err
    assert "small 2024: 6 cells of 64 px" in planned.out
    for word in ("over-compute", "device-hours", "costs in USD", str(out)):
        assert word in planned.out
    assert marks(config) == set()

    waiting = rtsx_command("campaign", "status", out)
    assert (waiting.status, "0 of 6 cells done" in waiting.out) == (0, True)
    assert rtsx_command("campaign", "status", out, "--check").status == 1

    ran = rtsx_command("campaign", "run", config, "--scheduler", scheduler)
    assert ran.status == 0, ran.out + ran.err
    assert "6 of 6 cells done" in ran.out
    assert "6 of 6 cells" in ran.err
    assert marks(config) == {cell_id(*cell) for cell in CELLS}
    written = {path: path.stat().st_mtime_ns for path in (out / YearLayout(2024).marks).iterdir()}
    again = rtsx_command("campaign", "run", config, "--scheduler", scheduler)
    assert again.status == 0, again.err
    assert {path: path.stat().st_mtime_ns for path in written} == written

    assert rtsx_command("campaign", "status", config, "--check").status == 0
    assert "all bytes are those that were written" in rtsx_command("campaign", "verify", config).out
    page = config.parent / "report.html"
    refused = rtsx_command("campaign", "report", out, "--out", page, "--coast", "nowhere.shp")
    assert (refused.status, "Coast lines are read from a file" in refused.err, page.exists()) == (2, True, False)
    page.write_text("<p>My notes")
    mine = rtsx_command("campaign", "report", out, "--out", page)
    assert (mine.status, "is no page of rtsx" in mine.err, page.read_text()) == (2, True, "<p>My notes")
    page.unlink()
    assert rtsx_command("campaign", "report", out, "--out", page).status == 0
    written = rtsx_command("campaign", "report", out, "--out", page)
    assert written.status == 0, written.err
    assert "small" in page.read_text()
    assert "10⁶ km² of valid ground" in written.out
    assert "from 6 cells" in written.out
    collected = rtsx_command("campaign", "collect", out, "--format", "flatgeobuf", "--no-tracks")
    assert collected.status == 0, collected.err
    assert list((out / YearLayout(2024).products).rglob("*.fgb"))

    stored = load_campaign_config(out / YearLayout(2024).config)
    assert stored == load_campaign_config(config).resolved()
    mapped = rtsx.Campaign.open(out).map()
    assert bool(mapped["valid"].any())


@pytest.mark.slow
def test_the_year_adds_a_step(rtsx_command: Command, config: Path, scheduler: str) -> None:
    assert rtsx_command("campaign", "plan", config, "--no-measure").status == 0
    ran = rtsx_command("campaign", "run", config, "--year", "2025", "--scheduler", scheduler)
    assert ran.status == 0, ran.out + ran.err
    out = config.parent / "out"
    assert rtsx.Campaign.open(out).map().sizes["time"] == 2
    newest = rtsx_command("campaign", "status", out)
    assert ("small 2025" in newest.out, [line.split()[0] for line in newest.out.splitlines()[:3]]) == (
        True,
        ["year", "2024", "2025"],
    )
    assert "small 2024" in rtsx_command("campaign", "status", out, "--year", "2024").out
    missing = rtsx_command("campaign", "status", out, "--year", "2023")
    assert (missing.status, "2023" in missing.err) == (2, True)


def test_a_cell_that_fails_is_told_and_made_when_it_is_cured(
    rtsx_command: Command, config: Path, scheduler: str
) -> None:
    whole = (config.parent / "east.tif").read_bytes()
    damage(config.parent / "east.tif")
    ran = rtsx_command("campaign", "run", config, "--scheduler", scheduler)
    assert ran.status == 2
    assert "of 6 cells are not done" in ran.err
    assert f"run rtsx campaign run {config} --retry" in ran.err
    lost = 6 - len(marks(config))
    assert lost > 0
    told = rtsx_command("campaign", "status", config)
    assert f"failed {lost}" in told.out
    assert "east.tif" in told.out

    (config.parent / "east.tif").write_bytes(whole)
    skipped = rtsx_command("campaign", "run", config, "--scheduler", scheduler)
    assert skipped.status == 2  # what was set aside is not run unless asked
    freed = rtsx_command("campaign", "retry", config)
    assert (freed.status, str(lost) in freed.out) == (0, True)
    cured = rtsx_command("campaign", "run", config, "--scheduler", scheduler)
    assert cured.status == 0, cured.out + cured.err
    assert len(marks(config)) == 6


@pytest.mark.slow
def test_what_is_damaged_is_made_anew_and_an_update_makes_what_has_changed(
    rtsx_command: Command, config: Path, scheduler: str
) -> None:
    assert rtsx_command("campaign", "run", config, "--scheduler", scheduler).status == 0
    out = config.parent / "out"
    name = sorted(marks(config))[0]
    mark = json.loads((out / YearLayout(2024).marks / f"{name}.json").read_text())
    key = next(key for key in mark["objects"] if "probability" in key)
    written = (out / key).read_bytes()
    (out / key).write_bytes(written[:-1] + bytes([written[-1] ^ 1]))
    found = rtsx_command("campaign", "verify", config)
    assert found.status == 1
    assert f"{name}: damaged {key}" in found.out
    assert rtsx_command("campaign", "retry", out, "--cell", name).status == 0
    assert rtsx_command("campaign", "run", config, "--scheduler", scheduler).status == 0
    assert rtsx_command("campaign", "verify", config).status == 0
    assert (out / key).read_bytes() == written
    wrong = rtsx_command("campaign", "verify", config, "--cell", "moon")
    assert (wrong.status, "--cell" in wrong.err) == (2, True)

    same = rtsx_command("campaign", "update", config, "--scheduler", scheduler)
    assert same.status == 0, same.err
    assert "6 cells checked, 0 have changed inputs" in same.out
    rewrite_east(config.parent / "east.tif")
    changed = rtsx_command("campaign", "update", config, "--scheduler", scheduler)
    assert changed.status == 0, changed.err
    assert "0 have changed" not in changed.out
    assert len(marks(config)) == 6


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"regoin": "arctic"}, "regoin: unknown key; did you mean 'region'"),
        ({"region": [10, 50, 11, 51]}, "image"),
        ({"model": "absent"}, "There is no model at"),
        ({"shard": 48}, "A cell is whole shards"),
    ],
)
def test_what_cannot_work_is_told_before_a_cell_runs(
    rtsx_command: Command, tmp_path: Path, values: dict[str, Any], change: dict[str, Any], told: str
) -> None:
    outcome = rtsx_command("campaign", "plan", write(tmp_path, {**values, **change}), "--no-measure")
    assert (outcome.status, told in outcome.err) == (2, True), outcome.err


def test_the_model_is_measured_as_workers_run_it(rtsx_command: Command, config: Path, kept_memory: list[str]) -> None:
    unmeasured = rtsx_command("campaign", "plan", config, "--no-measure")
    assert (unmeasured.status, "device-hours" in unmeasured.out, kept_memory) == (0, False, [])
    measured = rtsx_command("campaign", "plan", config)
    assert (measured.status, "device-hours" in measured.out, kept_memory) == (0, True, ["kept"])


def test_another_plan_is_refused_by_name(rtsx_command: Command, tmp_path: Path, values: dict[str, Any]) -> None:
    assert rtsx_command("campaign", "plan", write(tmp_path, values), "--no-measure").status == 0
    make_bundle(seed=4).save(tmp_path / "other")
    other = rtsx_command("campaign", "plan", write(tmp_path, {**values, "model": "other"}), "--no-measure")
    assert (other.status, "bundle" in other.err) == (2, True), other.err


def test_a_year_that_drifts_is_not_run_before_somebody_accepts_it(
    rtsx_command: Command, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = rtsx_command("campaign", "check", config)
    assert passed.status == 0, passed.err
    assert "6 alike" in rtsx_command("campaign", "status", config).out
    assert "alike red against tiny" in passed.out
    for path in config.parent.glob("*.tif"):
        scale_pixels(path, 3)
    tripped = rtsx_command("campaign", "check", config, "--year", "2025", "--against", "2024")
    assert tripped.status == 1, tripped.err
    assert "DRIFT red against 2024" in tripped.out
    assert "about 3 times those there: is the scale wrong?" in tripped.out
    assert (config.parent / "out" / YearLayout(2025).drift_page).is_file()
    for command in (("work",), ("submit", "--slurm", "--workers", "2", "--time", "1:00", "--dry-run")):
        refused = rtsx_command("campaign", *command, config, "--year", "2025")
        assert (refused.status, "--accept-drift" in refused.err) == (2, True), refused.err
    ledger = CampaignLedger(LocalObjects(config.parent / "out"), YearLayout(2025))
    ledger.quarantine(a_failure((0, 0)))
    nowhere = ("--gateway", "http://127.0.0.1:9", "--workers", "2")
    for line in (("work", "--retry"), ("run", "--retry", *nowhere), ("update", *nowhere)):
        nobody = rtsx_command("campaign", *line, config, "--year", "2025", "--accept-drift", "Ada")
        assert (nobody.status, "a name and a reason" in nobody.err) == (2, True), nobody.err
        assert "drift check of 2025 has tripped" in rtsx_command("campaign", *line, config, "--year", "2025").err, line
    assert ledger.set_aside_cells() == {(0, 0)}
    ledger.reset()
    accept = ("--accept-drift", "Ada: new product: level 2")
    submit = ("campaign", "submit", config, "--year", "2025", "--slurm", "--workers", "2", *accept, "--time")
    dry = rtsx_command(*submit, "1:00", "--dry-run")
    assert (dry.status, "#SBATCH" in dry.out) == (0, True), dry.err
    check = config.parent / "out" / YearLayout(2025).drift
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    monkeypatch.setenv("PATH", f"{sbatch.parent}:{os.environ['PATH']}")
    sbatch.write_text("#!/bin/bash\nexit 1\n")
    sbatch.chmod(0o755)
    run = ("campaign", "run", config, "--year", "2025", *accept, *nowhere)
    # What does not come to run has not opened the gate.
    assert [rtsx_command(*line).status for line in ((*submit, "0:02"), (*submit, "1:00"), run)] == [2, 2, 2]
    assert json.loads(check.read_text())["acceptances"] == []
    sbatch.write_text("#!/bin/bash\ncat > /dev/null\n")
    accepted = rtsx_command(*submit, "1:00")
    assert accepted.status == 0, accepted.err
    again = rtsx_command("campaign", "check", config, "--year", "2025")
    assert (again.status, "accepted by Ada on " in again.out, ": new product: level 2" in again.out) == (0, True, True)
    unneeded = rtsx_command("campaign", "work", config, "--accept-drift", "Ada: why not")
    assert (unneeded.status, "the check of 2024 has not tripped" in unneeded.err) == (2, True), unneeded.err


def test_a_cluster_that_is_not_there_is_told(rtsx_command: Command, config: Path) -> None:
    refused = rtsx_command("campaign", "run", config, "--gateway", "http://127.0.0.1:9", "--adapt", "0", "2")
    assert (refused.status, "127.0.0.1:9" in refused.err) == (2, True), refused.err


def test_a_year_without_a_mark_is_no_sound_one(rtsx_command: Command, config: Path) -> None:
    assert rtsx_command("campaign", "plan", config, "--year", "2031", "--no-measure").status == 0
    out = config.parent / "out"
    nothing = rtsx_command("campaign", "verify", out)
    assert (nothing.status, nothing.out) == (2, ""), nothing.err
    assert "No cell of 2031 has a mark" in nothing.err
    # Every command names the year that it took, where none was given.
    for command in ("status", "retry", "verify", "report", "collect"):
        assert "Year 2031, as no --year was given" in rtsx_command("campaign", command, out).err, command
        assert "no --year" not in rtsx_command("campaign", command, out, "--year", "2031").err, command


def test_a_check_of_the_status_is_of_all_years_of_its_table(rtsx_command: Command, tmp_path: Path) -> None:
    objects, plan = LocalObjects(tmp_path), a_plan(rows=1, columns=1)
    for one in (replace(plan, year=2023), plan):
        write_plan(objects, one)
        write_prices(objects, Prices(), year=one.year)
    CampaignLedger(objects, YearLayout(plan.year)).commit(a_mark((0, 0)))
    of_newest = rtsx_command("campaign", "status", tmp_path, "--year", "2024", "--check")
    assert (of_newest.status, rtsx_command("campaign", "status", tmp_path, "--check").status) == (0, 1), of_newest.err
    CampaignLedger(objects, YearLayout(2023)).commit(a_mark((0, 0)))
    assert rtsx_command("campaign", "status", tmp_path, "--check").status == 0


def test_a_damaged_plan_hides_no_other_year(rtsx_command: Command, tmp_path: Path) -> None:
    objects, plan = LocalObjects(tmp_path / "out"), a_plan(rows=1, columns=1)
    for one in (plan, replace(plan, year=2025)):
        write_plan(objects, one)
        write_prices(objects, Prices(), year=one.year)
    objects.put(YearLayout(2025).plan, b"{")
    looked = rtsx_command("campaign", "status", tmp_path / "out")
    assert (looked.status, "years/2025/plan.json" in looked.err, "arctic 2024" in looked.out) == (0, True, True), looked
    copied = rtsx_command("campaign", "copy", tmp_path / "out", tmp_path / "copy")
    assert (copied.status, "plan of 2025 is damaged" in copied.out) == (1, True), copied.err
    for of_one in (("status", "--year", "2025"), ("verify",)):
        refused = rtsx_command("campaign", *of_one[:1], tmp_path / "out", *of_one[1:])
        assert (refused.status, "years/2025/plan.json" in refused.err) == (2, True), of_one


def test_an_output_without_a_campaign_is_told(rtsx_command: Command, tmp_path: Path) -> None:
    for command in ("status", "retry", "verify", "report", "collect"):
        outcome = rtsx_command("campaign", command, tmp_path)
        assert (outcome.status, "no campaign" in outcome.err) == (2, True), (command, outcome.err)


def configured(**cluster: Any) -> CampaignConfig:
    files = {"files": "scene.tif", "layers": ["red"]}
    cube = {"sources": {"scene": files}}
    said = {"name": "a", "year": 2024, "region": "arctic", "cube": cube, "model": "demo", "output": "out"}
    return CampaignConfig.model_validate({**said, "cluster": cluster})


def test_options_change_the_machines_of_the_file() -> None:
    here, there = configured(workers=2, memory="4GB"), configured(gateway="http://a", profile="gpu", adapt=[0, 9])
    assert cluster_of(here, local=False, workers=None).workers == 2
    more = cluster_of(here, local=False, workers=5)
    assert (more.workers, more.memory_bytes) == (5, 4_000_000_000)
    assert cluster_of(here, local=False, scheduler="tcp://b:1").kind == "scheduler"
    fixed = cluster_of(there, local=False, workers=3)
    assert (fixed.kind, fixed.profile, fixed.workers, fixed.adapt) == ("gateway", "gpu", 3, None)
    other = cluster_of(there, local=False, gateway="http://b", adapt=(1, 2), auth="basic")
    assert (other.gateway, other.profile, other.adapt, other.auth) == ("http://b", None, (1, 2), "basic")
    assert cluster_of(there, local=True).kind == "local"
    with pytest.raises(ClusterError, match="used as they are"):
        cluster_of(there, local=False, scheduler="tcp://b:1", workers=3)
    with pytest.raises(ClusterError, match="memory is a number with a unit"):
        cluster_of(here, local=False, memory="much")


def test_progress_without_a_terminal_is_a_line_at_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    def moment(done: int) -> RunSummary:
        return RunSummary(
            run="r", cells=40, done=done, skipped=0, set_aside=(), left=0, stopped=None, retried=1, workers=3,
            in_flight=0, started="", finished="", seconds=0.0, worker_seconds=0.0,
        )  # fmt: skip

    with campaign_progress("mapping") as progress:
        for done in (0, 1, 3, 4, 5, 6, 39, 40):
            progress(moment(done))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"mapping: {done} of 40 cells, 3 workers, 1 tried again" for done in (0, 4, 39, 40)]


# A terminal sends Ctrl-C to all processes of the command, workers too; who ends a job sends to the first alone.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "send", "status"), [(signal.SIGINT, os.killpg, 130), (signal.SIGTERM, os.kill, 143)]
)
def test_signals_stop_it_and_the_same_command_goes_on(
    number: int,
    send: Callable[[int, int], None],
    status: int,
    rtsx_command: Command,
    config: Path,
    scheduler: str,
) -> None:
    log = config.with_name("said.txt")
    # Ctrl-C has to reach workers too, so those that it is sent to are of the command's own group.
    method = "forkserver" if send is os.kill else "spawn"
    process = warm.start(
        "rtsx.cli:main",
        ["rtsx", "campaign", "run", str(config), "--workers", "1"],
        log=log,
        environment={"DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": method},
        daemon=False,
    )
    try:
        while not re.search("[1-9] of 6 cells", log.read_text() if log.exists() else ""):  # the first cells are done
            assert process.is_alive(), log.read_text()
            process.join(0.02)
        send(process.pid or 0, number)
        process.join(120)
    finally:
        if process.is_alive():
            os.killpg(process.pid or 0, signal.SIGKILL)
    if process.exitcode == 0:
        pytest.skip("the last cell was done before the signal came")
    told = log.read_text()
    assert process.exitcode == status, told
    assert "Cells that are done stay; the same command goes on with the rest." in told
    assert "Unexpected" not in told
    assert "distributed" not in told  # dask's loggers are for who looks for a defect
    before = marks(config)
    assert before
    ran = rtsx_command("campaign", "run", config, "--scheduler", scheduler)
    assert ran.status == 0, ran.out + ran.err
    assert len(marks(config)) == 6


def test_an_output_is_worked_by_the_config_in_it(rtsx_command: Command, config: Path, tmp_path: Path) -> None:
    assert rtsx_command("campaign", "plan", config, "--no-measure").status == 0
    refused = rtsx_command("campaign", "work", tmp_path / "out")
    assert (refused.status, "--trust" in refused.err) == (2, True), refused.err
    late = rtsx_command("campaign", "work", tmp_path / "out", "--trust", "--until", "2024-01-01T00:00")
    assert (late.status, marks(config), "before its first cell" in late.err) == (2, set(), True), late.err
    both = rtsx_command("campaign", "work", config, "--workers", "2", "--gpu", "2")
    assert (both.status, "Give one of them" in both.err) == (2, True)


def test_a_batch_system_runs_members_until_every_cell_is_done(
    rtsx_command: Command, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members that a stand-in for sbatch executes; a stand-in for the worker runs out of time twice."""
    refused = rtsx_command("campaign", "submit", config, "--slurm", "--workers", "2", "--time", "1:00")
    assert (refused.status, "no campaign" in refused.err or "no plan" in refused.err) == (2, True)
    assert rtsx_command("campaign", "plan", config, "--no-measure").status == 0
    programs = {
        "sbatch": 'cat > job.sh; echo "Submitted batch job 7"',
        "rtsx": 'echo "$@" >> calls.txt; [ "$(wc -l < calls.txt)" -gt 2 ] || exit 75',
        "scontrol": '[ "$1 $2" = "requeue 7_0" ] && echo again >> requeued.txt',
    }
    for name, body in programs.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    said = rtsx_command(
        *("campaign", "submit", config, "--slurm", "--workers", "2", "--time", "1:00", "--gpus", "2"),
        *("--partition", "gpu", "--memory", "8GiB", "--setup", "export READY=1", "--option", "--constraint=a100"),
    )
    assert (said.status, "Submitted batch job 7" in said.out) == (0, True), said.err
    script = (tmp_path / "job.sh").read_text()
    for line in ("--array=0-1", "--time=60", "--mem=8192M", "--partition=gpu", "--constraint=a100", "--requeue"):
        assert f"#SBATCH {line}\n" in script
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "job.sh"], check=True)
    statuses = []
    while not statuses or (tmp_path / "requeued.txt").read_text().count("again") == len(statuses):
        member = {**os.environ, "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}
        statuses.append(subprocess.run(["bash", "job.sh"], env=member, check=False).returncode)
    assert statuses == [75, 75, 0]
    words = (tmp_path / "calls.txt").read_text().splitlines()[0].split()
    assert words[:3] + words[-2:] == ["campaign", "work", str(config), "--gpu", "2"]
    until = datetime.fromisoformat(words[words.index("--until") + 1])
    assert timedelta(minutes=57) < until - datetime.now(UTC) < timedelta(minutes=59)

    pbs = ("campaign", "submit", config, "--pbs", "--workers", "3", "--time", "90", "--dry-run")
    unfetched = rtsx_command(*pbs, "--from", tmp_path / "nowhere")
    assert (unfetched.status, "lacks 6 of the 6 cells" in unfetched.err) == (2, True), unfetched.err
    printed = rtsx_command(*pbs)
    assert "#PBS -J 0-2" in printed.out
    assert "#PBS -l walltime=01:30:00" in printed.out
    for wrong in (["--time", "1:00"], ["--slurm", "--time", "soon"], ["--slurm", "--time", "2"]):
        assert rtsx_command("campaign", "submit", config, "--workers", "2", *wrong).status == 2


@pytest.mark.slow
def test_slurm_runs_a_member_that_queues_itself_again(
    rtsx_command: Command, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is over the first time, as a stand-in for the worker says; the second time it ends the campaign."""
    worker = tmp_path / "bin" / "rtsx"
    worker.parent.mkdir()
    worker.write_text(f'#!/bin/bash\n[ -n "$SLURM_RESTART_COUNT" ] || exit 75\nexec {script_of("rtsx")} "$@"\n')
    worker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{worker.parent}:{os.environ['PATH']}")
    assert rtsx_command("campaign", "plan", config, "--no-measure").status == 0
    with slurm(tmp_path) as settings:
        monkeypatch.setenv("SLURM_CONF", str(settings))
        options = ("--cpus", "1", "--memory", "1GB", "--partition", "all", "--logs", tmp_path)
        said = rtsx_command("campaign", "submit", config, "--slurm", "--workers", "1", "--time", "12", *options)
        (job,) = re.findall(r"Submitted batch job (\d+)", said.out)
        assert finish_jobs(tmp_path, is_done=lambda: len(marks(config)) == len(CELLS)) == {f"{job}_0"}
        ended = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    logs = "".join(path.read_text() for path in tmp_path.glob(f"rtsx-{job}_*.log"))
    assert ended.count("JobState=COMPLETED") == ended.count("ExitCode=0:0") == 1, logs
    assert (ended.count("Restarts=1"), len(marks(config))) == (1, len(CELLS)), logs
