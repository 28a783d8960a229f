"""deploy/kubernetes against Kubernetes' own schemas, the Pod Security Standards, and the server's settings."""

import copy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from rag.settings import Settings
from rag.stores.postgres.migrating import Schema
from tests.support.postgres_server import PostgresServer
from tests.support.server import run_module
from tests.support.waiting import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "kubernetes"
VERSIONS = ("1.30", "1.33")
"""The oldest release that is meant, and a recent one."""

OBJECTS: list[dict[str, Any]] = [
    document
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]


def name_of(document: dict[str, Any]) -> str:
    return f"{document['kind']}/{document['metadata']['name']}"


def the(kind: str, name: str | None = None) -> dict[str, Any]:
    found, *more = [one for one in OBJECTS if one["kind"] == kind and name in (None, one["metadata"]["name"])]
    assert not more
    return found


def pods() -> dict[str, dict[str, Any]]:
    """The pod specifications, by what makes the pods."""
    job = the("CronJob")["spec"]["jobTemplate"]["spec"]["template"]
    return {"Deployment": the("Deployment")["spec"]["template"]["spec"], "CronJob": job["spec"]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", OBJECTS, ids=name_of)
def test_every_object_satisfies_the_schema_of_its_kind(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_the_schema_would_notice_a_mistake() -> None:
    wrong = copy.deepcopy(the("Deployment"))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_kustomize_names_every_file_once() -> None:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    assert sorted(listed) == sorted(path.name for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")


def test_everything_that_an_operator_expects_is_there() -> None:
    kinds = {document["kind"] for document in OBJECTS}
    assert {
        "Namespace", "ConfigMap", "Secret", "Deployment", "Service", "Ingress", "HorizontalPodAutoscaler",
        "PodDisruptionBudget", "PersistentVolumeClaim",
    } <= kinds  # fmt: skip


@pytest.mark.parametrize("maker", pods())
def test_pods_are_restricted_as_their_namespace_enforces(maker: str) -> None:
    assert the("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = pods()[maker]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 1001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert {"hostNetwork", "hostPID", "hostIPC"} & pod.keys() == set()
    assert all(volume.keys() & {"persistentVolumeClaim", "emptyDir"} for volume in pod["volumes"])
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"memory"} <= container["resources"]["limits"].keys()
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()


@pytest.mark.parametrize("maker", pods())
def test_what_is_mounted_is_there_and_holds_what_the_settings_name(maker: str) -> None:
    pod, settings = pods()[maker], the("ConfigMap")["data"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    [container] = pod["containers"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} == volumes.keys()
    claims = {document["metadata"]["name"] for document in OBJECTS if document["kind"] == "PersistentVolumeClaim"}
    used = {volume["persistentVolumeClaim"]["claimName"] for volume in volumes.values() if "emptyDir" not in volume}
    assert used <= claims
    index = mounts[settings["VECTOR_DB_PATH"]]
    assert index.get("readOnly", False) is (maker == "Deployment")
    assert "/tmp" in mounts
    if maker == "Deployment":
        assert settings["STATE_DIR"] in mounts


def test_the_settings_are_ones_that_the_server_takes_and_all_that_it_needs() -> None:
    given = {**the("ConfigMap")["data"], **the("Secret")["stringData"]}
    known = {spec.metadata["variable"] for spec in Settings.__dataclass_fields__.values()}
    assert given.keys() <= known
    settings = Settings.from_environment(given)
    assert settings.missing("CHAT", "EMBEDDINGS") == []
    assert settings.redis_url, "several pods share what they remember and count"


def test_with_postgresql_the_container_that_stands_as_a_comment_makes_the_schema(tmp_path: Path) -> None:
    lines, given = (FOLDER / "deployment.yaml").read_text(encoding="utf-8").splitlines(), the("Secret")["stringData"]
    begins, ends = lines.index("      # initContainers:"), lines.index("      containers:")
    lines[begins:ends] = [line.replace("# ", "", 1) for line in lines[begins:ends]]
    deployment = yaml.safe_load("\n".join(lines))
    for version in VERSIONS:
        kubernetes_validate.validate(deployment, version, strict=True)
    pod = deployment["spec"]["template"]["spec"]
    [migrate], [server] = pod["initContainers"], pod["containers"]
    assert (migrate["image"], migrate["securityContext"]) == (server["image"], server["securityContext"])
    shown = (FOLDER / "secret.yaml").read_text(encoding="utf-8").partition("# DATABASE_URL: ")[2].splitlines()[0]
    assert Settings.from_environment({**given, "DATABASE_URL": shown}).database_url == shown
    with PostgresServer() as postgres:
        url = postgres.empty_database()
        python, option, module, *arguments = migrate["command"]
        assert (python, option) == ("python", "-m")
        done = run_module(module, *arguments, env={**given, "DATABASE_URL": url}, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert Schema(url).applied()


def test_the_probes_ask_what_they_are_for() -> None:
    [container] = pods()["Deployment"]["containers"]
    asked = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert asked == {"startup": "/health", "liveness": "/health", "readiness": "/ready"}
    assert container["ports"] == [{"name": "http", "containerPort": int(the("ConfigMap")["data"]["PORT"])}]


def test_a_pod_has_more_time_to_end_than_gunicorn_and_the_wait_before_it_take() -> None:
    wait_s, gunicorn_s = 5, 1 + (25 + 2) + 5
    pod = pods()["Deployment"]
    assert f"time.sleep({wait_s})" in pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert pod["terminationGracePeriodSeconds"] > wait_s + gunicorn_s


def test_whoever_selects_pods_selects_those_of_the_deployment_and_no_others() -> None:
    labels = the("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert the("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert the("Service", "rag-server")["spec"]["selector"] == labels
    assert the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    job = the("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert job != labels
    assert the("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == the("Deployment")["metadata"]["name"]
    assert "replicas" not in the("Deployment")["spec"], "two would then decide how many there are"


def test_the_ingress_does_not_hold_streams_back() -> None:
    ingress = the("Ingress", "rag-server")
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    [rule] = ingress["spec"]["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"]["name"] == the("Service", "rag-server")["metadata"]["name"]


def test_uploads_pass_the_ingress_and_nothing_else_does_that_is_as_large() -> None:
    ingress, limits = the("Ingress", "rag-server-documents"), {}
    for one in (ingress, the("Ingress", "rag-server")):
        limits[one["metadata"]["name"]] = one["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]
    assert limits == {"rag-server-documents": "51m", "rag-server": "64k"}
    [rule], [main] = ingress["spec"]["rules"], the("Ingress", "rag-server")["spec"]["rules"]
    assert rule["host"] == main["host"]
    assert [path["path"] for path in rule["http"]["paths"]] == ["/documents"]
    settings = Settings.from_environment({"DEMO": "true"})
    assert settings.max_files_per_request * settings.max_file_size < 51 * 1024 * 1024


def test_the_ingress_publishes_no_metrics() -> None:
    [rule] = the("Ingress", "rag-server")["spec"]["rules"]
    services = {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]}
    assert services == {"/": "rag-server", "/metrics": "nobody"}
    assert "selector" not in the("Service", "nobody")["spec"]
