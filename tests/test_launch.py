"""The scripts of launch/: what they run, ask for and say, without a cluster."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPO

LAUNCH = REPO / "launch"
SCRIPTS = sorted(path for path in LAUNCH.rglob("*") if path.suffix in (".sh", ".sbatch"))
README = (LAUNCH / "README.md").read_text()
RUN = ("--config", "experiments/digits.py", "--workdir", "/mnt/runs/a run")


def stand_in(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def launch(script, *arguments, bin=None, **environment):
    """(exit code, stdout, stderr) of a script, with the commands in `bin` in the place of the real ones."""
    path = os.environ["PATH"] if bin is None else f"{bin}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(LAUNCH / script), *arguments],
        env=os.environ | {"PATH": path} | environment,
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


# Scripts


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_understands_a_script_and_a_wrong_use_is_one_line(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n") and "\nset -euo pipefail\n" in text
    assert script.suffix == ".sbatch" or os.access(script, os.X_OK)
    code, out, err = launch(script)
    assert code == 2 and out == "" and err.startswith("usage: ") and err.count("\n") == 1
    assert str(script.relative_to(REPO)) in err


def test_shellcheck_finds_nothing():
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    found = subprocess.run(["shellcheck", *map(str, SCRIPTS)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


# SLURM


def header(script):
    lines = re.findall(r"^#SBATCH --([^=\s]+)(?:=(\S+))?$", (LAUNCH / "slurm" / script).read_text(), re.MULTILINE)
    assert len(lines) == (LAUNCH / "slurm" / script).read_text().count("\n#SBATCH"), "a line that was not understood"
    return dict(lines)


@pytest.mark.parametrize("script", ["train.sbatch", "sweep.sbatch"])
def test_a_batch_script_asks_for_what_the_readme_says(script):
    asked, text = header(script), (LAUNCH / "slurm" / script).read_text()
    assert "requeue" in asked and asked["open-mode"] == "append"
    assert f"--signal={asked['signal']}" in README and asked["signal"] == "TERM@180" and "three minutes" in README
    assert "--kill-on-bad-exit=1" in text and "--kill-on-bad-exit" in README
    assert "gpus-per-task" not in asked, "GPUs that do not see each other talk slowly"
    name = asked["output"].replace("%x", asked["job-name"])
    assert re.sub("%[jA]", "JOB", name).replace("%a", "INDEX") in README
    if script == "train.sbatch":
        assert asked["nodes"] == "2" and asked["ntasks-per-node"] == asked["gpus-per-node"] == "8"
        assert "takes 2 nodes of 8 GPUs" in README


@pytest.mark.parametrize("script, job", [("train.sbatch", "7"), ("sweep.sbatch", "7_3")])
@pytest.mark.parametrize("code", [0, 1, 75])
def test_a_run_that_saved_goes_back_into_the_queue(script, job, code, tmp_path):
    stand_in(tmp_path / "srun", f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/ran\nexit {code}\n')
    stand_in(tmp_path / "scontrol", f'#!/bin/sh\necho "$@" >{tmp_path}/requeued\n')
    number = dict(SLURM_JOB_ID="7", SLURM_NTASKS="16", SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="3")
    assert launch(f"slurm/{script}", *RUN, bin=tmp_path, **number)[0] == code
    ran = (tmp_path / "ran").read_text().splitlines()
    start = ran.index("python")
    more = ["--expect_processes", "16", *RUN] if script == "train.sbatch" else [*RUN, "--index", "3"]
    assert ran[start:] == ["python", "-m", "ddpm.main", *more] and "--kill-on-bad-exit=1" in ran[:start]
    requeued = tmp_path / "requeued"
    assert (requeued.read_text() == f"requeue {job}\n") if code == 75 else not requeued.exists()


# Workstation

COMMAND = f"""#!{sys.executable}
import json, os, pathlib, signal, sys, time
if "--list" in sys.argv:
    sys.exit(print(*(f"{{i}} a run" for i in range(5)), sep="\\n"))
here, i = pathlib.Path(os.environ["HERE"]), sys.argv[-1]
def leave(*_):
    time.sleep(0.2)  # saves
    os._exit(75)
signal.signal(signal.SIGTERM, leave)
began = time.monotonic()
(here / f"{{i}}.began").touch()
while len(list(here.glob("*.began"))) < int(os.environ["TOGETHER"]):
    time.sleep(0.01)
time.sleep(float(os.environ["NAP"]))
said = dict(argv=sys.argv[1:], gpus=os.environ.get("CUDA_VISIBLE_DEVICES"), began=began, ended=time.monotonic())
(here / f"{{i}}.json").write_text(json.dumps(said))
sys.exit(int(i == os.environ.get("FAILS")))
"""


@pytest.fixture
def sweep(tmp_path):
    """Options that start local.sh with a stand-in for the command, which has five runs."""
    stand_in(tmp_path / "python", COMMAND)
    flags = ("--sweep", "seed=0..4", "--config", "a.py", f"--workdir={tmp_path}/logs")
    return flags, dict(
        PYTHON=str(tmp_path / "python"), HERE=str(tmp_path), NAP="0.05", TOGETHER="1", CUDA_VISIBLE_DEVICES=""
    )


def said(path):
    return [json.loads((path / f"{i}.json").read_text()) for i in range(5)]


@pytest.mark.parametrize(
    "jobs, visible, shares", [(2, "", {""}), (None, "0,1,3", {"0", "1", "3"}), (2, "4,5,6,7", {"4,5", "6,7"})]
)
def test_a_sweep_runs_so_many_at_a_time_each_on_its_gpus(sweep, jobs, visible, shares, tmp_path):
    flags, environment = sweep
    chosen = ("--jobs", str(jobs)) if jobs else ()
    environment |= dict(CUDA_VISIBLE_DEVICES=visible, TOGETHER=str(jobs or 3))  # the first runs wait for each other
    code, out, err = launch("local.sh", *chosen, *flags, **environment)
    assert code == 0 and err == "" and out.count("exit 0") == 5
    runs = said(tmp_path)
    assert [run["argv"] for run in runs] == [["-m", "ddpm.main", *flags, "--index", str(i)] for i in range(5)]
    assert {run["gpus"] for run in runs} == shares
    together = [[b for b in runs if b["began"] <= a["began"] < b["ended"]] for a in runs]
    assert max(map(len, together)) == (jobs or 3)
    for some in together if visible else ():
        assert len({run["gpus"] for run in some}) == len(some), "two runs on one GPU"
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == [f"{i}.log" for i in range(5)]


def test_a_run_that_fails_leaves_the_others_of_its_sweep_alone(sweep, tmp_path):
    flags, environment = sweep
    code, out, _ = launch("local.sh", "--jobs=3", *flags, **environment, FAILS="1")
    assert code == 1 and "run 1: exit 1" in out and out.count("exit 0") == 4 and len(said(tmp_path)) == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_sweep_that_is_stopped_lets_its_runs_save(sweep, number, tmp_path):
    flags, environment = sweep
    script = subprocess.Popen(
        ["env", "--default-signal=INT", "bash", str(LAUNCH / "local.sh"), "--jobs", "2", *flags],
        env=os.environ | environment | {"NAP": "30"},
        stdout=subprocess.PIPE,
        text=True,
    )
    while len(list(tmp_path.glob("*.began"))) < 2:
        assert script.poll() is None
        time.sleep(0.02)
    script.send_signal(number)
    out, _ = script.communicate(timeout=20)
    assert script.returncode == 75 and sorted(re.findall(r"run (\d): exit (\d+)", out)) == [("0", "75"), ("1", "75")]


def test_without_a_gpu_a_sweep_asks_how_many_at_a_time(sweep):
    flags, environment = sweep
    code, _, err = launch("local.sh", *flags, **environment)
    assert code == 2 and "--jobs N, at least 1, is needed where no GPU is visible" in err


# TPU

GCLOUD = """#!/usr/bin/env bash
printf '%s\\0' "$@" END >>"$HERE/calls"
case "$*" in
  *describe*) answers=$HERE/states ;;
  *'cat train.exit'*) answers=$HERE/runs ;;
  *) exit 0 ;;
esac
read -r answer <"$answers" && sed -i 1d "$answers" && [[ $answer != NONE ]] && echo "$answer"
"""


def gcloud_calls(tmp_path, script, *arguments, states="", runs=""):
    """(exit code, what was asked of gcloud, stderr), where gcloud answers with these states and exit codes, in turn."""
    stand_in(tmp_path / "bin" / "gcloud", GCLOUD)
    for name, answers in dict(states=states, runs=runs, calls="").items():
        (tmp_path / name).write_text("".join(f"{answer}\n" for answer in answers.split()))
    code, _, err = launch(script, *arguments, bin=tmp_path / "bin", HERE=str(tmp_path), POLL_SECONDS="0")
    calls = (tmp_path / "calls").read_text().split("END\0")
    return code, [call.split("\0")[:-1] for call in calls[:-1]], err


def kinds(calls):
    """The calls in words; a look at states and exit codes is none of them."""
    words = dict(create="create", delete="delete", scp="copy")
    named = [next((word for verb, word in words.items() if call[3] == verb), call[-1]) for call in calls]
    named = ["install" if "uv pip install" in name else name for name in named]
    return [
        "start" if "nohup" in name else name for name in named if "train.exit 2>" not in name and "--format" not in name
    ]


STARTED = ["copy", "install", "start"]
WATCH = ("tpu/watch.sh", "run1", "v5litepod-16", "--spot", "--", *RUN)


def test_a_slice_that_is_taken_away_is_asked_for_again(tmp_path):
    states = "NONE WAITING_FOR_RESOURCES ACTIVE ACTIVE SUSPENDING NONE ACTIVE ACTIVE ACTIVE ACTIVE"
    code, calls, err = gcloud_calls(tmp_path, *WATCH, states=states, runs="running gone 75 0")
    assert (code, err) == (0, "")
    assert kinds(calls) == ["create", *STARTED, "delete", "create", *STARTED, *STARTED, *STARTED]


def test_a_worker_runs_what_was_asked_and_keeps_its_log_and_exit_code(tmp_path):
    _, calls, _ = gcloud_calls(tmp_path, "tpu/run.sh", "run1", *RUN)
    (tmp_path / "ddpm" / ".venv" / "bin").mkdir(parents=True)
    stand_in(tmp_path / "ddpm" / ".venv" / "bin" / "python", '#!/bin/sh\nprintf "%s\\n" "$@"\nexit 3\n')
    subprocess.run(["bash", "-c", calls[-1][-1].removeprefix("--command=") + " wait"], cwd=tmp_path, check=True)
    assert (tmp_path / "train.log").read_text().splitlines() == ["-m", "ddpm.main", *RUN]
    assert (tmp_path / "train.exit").read_text() == "3\n"


@pytest.mark.parametrize("failure", ["1", "2", "134"])
def test_a_run_that_fails_is_not_started_for_ever(failure, tmp_path):
    code, calls, err = gcloud_calls(tmp_path, *WATCH, states="ACTIVE " * 9, runs=f"{failure} " * 9)
    assert code == 1 and kinds(calls) == STARTED * 3 and "failed four times" in err


@pytest.mark.parametrize("kind, version", [("v5p-128", "v2-alpha-tpuv5"), ("v4-32", "tpu-ubuntu2204-base")])
def test_a_slice_has_the_software_of_its_kind(kind, version, tmp_path):
    code, calls, _ = gcloud_calls(tmp_path, "tpu/up.sh", "run1", kind, states="PROVISIONING ACTIVE")
    assert code == 0 and f"--runtime-version={version}" in calls[0] and f"--accelerator-type={kind}" in calls[0]
    assert gcloud_calls(tmp_path, "tpu/up.sh", "run1", kind, states="FAILED")[0] == 1


def test_every_command_to_a_worker_is_bash(tmp_path):
    _, calls, _ = gcloud_calls(tmp_path, *WATCH, states="ACTIVE " * 2, runs="gone 0")
    commands = [argument.removeprefix("--command=") for call in calls for argument in call if "--command=" in argument]
    assert len(commands) == 4
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)


@pytest.fixture
def gcloud(tmp_path):
    """gcloud's answer to arguments, without an account: it parses flags before it misses one."""
    if not shutil.which("gcloud"):
        pytest.skip("gcloud is not installed")
    settings = dict(
        CLOUDSDK_CONFIG=str(tmp_path / "gcloud"), CLOUDSDK_CORE_PROJECT="p", CLOUDSDK_COMPUTE_ZONE="us-west4-a"
    )
    settings |= dict(CLOUDSDK_CORE_DISABLE_PROMPTS="1", CLOUDSDK_CORE_CHECK_GCE_METADATA="false")

    def run(*arguments):
        done = subprocess.run(
            ["gcloud", *arguments], env=os.environ | settings, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stderr

    return run


@pytest.mark.slow
def test_gcloud_understands_the_scripts_and_the_readme(gcloud, tmp_path):
    _, calls, _ = gcloud_calls(tmp_path, *WATCH, states="NONE ACTIVE ACTIVE SUSPENDED ACTIVE", runs="1 0")
    assert kinds(calls) == ["create", *STARTED, *STARTED, "delete"]
    documented = re.findall(r"^ *(gcloud .*)$", README, re.MULTILINE)
    assert len(documented) == 3
    calls += [shlex.split(line)[1:] for line in documented]
    for call in {tuple(call): call for call in calls}.values():
        code, err = gcloud(*call)
        assert code == 1 and "active account" in err, (call, err)


def test_gcloud_refuses_a_wrong_flag(gcloud):
    code, err = gcloud("compute", "tpus", "queued-resources", "delete", "run1", "--forse", "--quiet")
    assert code == 2 and "unrecognized arguments: --forse" in err
