"""The manifests of launch/k8s, without a cluster."""

import copy
import re
import shlex
import string

import kubernetes_validate
import pytest
import yaml
from conftest import REPO
from kubeflow_trainer_api import models

MANIFESTS = sorted((REPO / "launch" / "k8s").glob("*.yaml"))
README = (REPO / "launch" / "README.md").read_text()
SWEEP = '--sweep "seed=0..2 optimizer.learning_rate=1e-4,2e-4" --config a.py --workdir /mnt/runs/c'
CHOSEN = dict(NAME="run1", IMAGE="registry/ddpm", NODES="2", RUNS="6", AT_ONCE="3", ARGS=SWEEP)


def documents(path):
    return list(yaml.safe_load_all(string.Template(path.read_text()).safe_substitute(CHOSEN)))


def check(document):
    """Raises for a field that Kubernetes or JobSet does not know, or of another type."""
    if document["kind"] == "JobSet":
        known = models.JobsetV1alpha2JobSet.from_dict(copy.deepcopy(document)).to_dict()
        assert known == document  # what is not known is left out
    else:
        kubernetes_validate.validate(document, "1.37", strict=True)


ALL = [(path, i) for path in MANIFESTS for i in range(len(documents(path)))]


@pytest.mark.parametrize("path, i", ALL, ids=lambda value: getattr(value, "name", value))
def test_kubernetes_knows_every_field_of_a_manifest(path, i):
    check(documents(path)[i])


OF_THE_USER = {"annotations", "limits", "selector", "nodeSelector"}


def mappings(value):
    """All mappings whose keys Kubernetes gives."""
    if isinstance(value, dict):
        yield value
    inner = [v for key, v in value.items() if key not in OF_THE_USER] if isinstance(value, dict) else value
    for each in inner if isinstance(inner, list) else ():
        yield from mappings(each)


@pytest.mark.parametrize("path, i", ALL, ids=lambda value: getattr(value, "name", value))
def test_a_misspelt_field_is_found_wherever_it_stands(path, i):
    places = len(list(mappings(documents(path)[i])))
    assert places >= 3
    for n in range(places):
        document = documents(path)[i]
        list(mappings(document))[n]["misspelt"] = "a value"
        with pytest.raises((AssertionError, kubernetes_validate.ValidationError)):
            check(document)


def container(document):
    (found,) = [m["containers"][0] for m in mappings(document) if "containers" in m]
    return found


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_runs_the_command_and_lets_it_save(path):
    text, document = path.read_text(), documents(path)[-1]
    variables = set(re.findall(r"\$\{(\w+)\}", text))
    listed = re.search(r"envsubst '(.*?)' < launch/k8s/(\S+)", text)
    assert set(listed[1].replace("$", "").split()) == variables and listed[2] == path.name
    assert listed[0] in README and all(f"{name}=" in text for name in variables)
    bash, flag, command = container(document)["command"]
    assert (bash, flag) == ("bash", "-c") and command.startswith("exec python -m ddpm.main ")
    words = shlex.split(command)
    assert words[words.index("--sweep") + 1] == shlex.split(SWEEP)[1]
    (pod,) = [m for m in mappings(document) if "containers" in m]
    assert pod["terminationGracePeriodSeconds"] == 120 and pod["restartPolicy"] == "Never"
    (job,) = [m for m in mappings(document) if "podFailurePolicy" in m]
    assert job["completionMode"] == "Indexed"
    if "--expect_processes" in words:
        assert words[words.index("--expect_processes") + 1] == str(job["completions"]) == str(job["parallelism"])
    saved = [
        rule["action"] for rule in job["podFailurePolicy"]["rules"] if rule.get("onExitCodes", {}).get("values") == [75]
    ]
    assert saved == (["FailJob"] if document["kind"] == "JobSet" else ["Ignore"])


def test_the_processes_of_a_job_find_the_first_one():
    service, job = documents(REPO / "launch" / "k8s" / "job.yaml")
    given = {variable["name"]: variable.get("value") for variable in container(job)["env"]}
    name, pod = job["metadata"]["name"], job["spec"]["template"]["spec"]
    assert service["metadata"]["name"] == pod["subdomain"] == name and service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert given["JAX_COORDINATOR_ADDRESS"] == f"{name}-0.{pod['subdomain']}:1234"
    assert given["JAX_NUM_PROCESSES"] == str(job["spec"]["completions"]) and "JAX_PROCESS_ID" in given
