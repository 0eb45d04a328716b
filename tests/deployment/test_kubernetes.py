"""The manifests are valid for Kubernetes, and what they refer to exists."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deployment.manifests import KUBERNETES, Manifest, documents, pod_of, rendered
from pacesetter_service.__main__ import LAST_SECONDS
from pacesetter_service.api.access import ACCESS
from pacesetter_service.settings import Settings

VERSION = "1.31"
"""The API version whose schemas the manifests must match; later ones accept them too."""

OVERLAYS = ("postgres", "sqlite")
FILES = sorted(KUBERNETES.rglob("*.yaml"))
MANIFESTS = [path for path in FILES if path.name != "kustomization.yaml"]
SECRET_KEYS = {"admin-token", "database-url"}


def _named(path: Path) -> str:
    return str(path.relative_to(KUBERNETES))


@pytest.mark.parametrize("path", MANIFESTS, ids=_named)
def test_a_manifest_keeps_to_the_schema(path: Path) -> None:
    """Each field is known to the API server and has the right type, and none is missing."""
    for manifest in documents(path.read_text()):
        kubernetes_validate.validate(manifest, VERSION, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_an_overlay_comes_to_keeps_to_the_schema(overlay: str) -> None:
    """Patches leave nothing behind that the API server would refuse."""
    assert rendered(overlay)
    for manifest in rendered(overlay):
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_a_field_that_is_misspelt_is_found() -> None:
    """The schemas are strict: otherwise the tests above would prove nothing."""
    text = (KUBERNETES / "base/deployment.yaml").read_text()
    (manifest,) = documents(text.replace("readinessProbe", "readynessProbe"))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_every_file_is_part_of_a_kustomization() -> None:
    """What a kustomization names exists, and no manifest is forgotten."""
    found = set()
    for path in FILES:
        if path.name == "kustomization.yaml":
            for named in yaml.safe_load(path.read_text())["resources"]:
                resource = (path.parent / named).resolve()
                assert resource.exists(), f"{path}: {named}"
                found.add(resource)
    assert {path.resolve() for path in MANIFESTS} <= found


def _only(overlay: str, kind: str) -> Manifest:
    (manifest,) = [each for each in rendered(overlay) if each["kind"] == kind]
    return manifest


def _workload(overlay: str) -> Manifest:
    return _only(overlay, "StatefulSet" if overlay == "sqlite" else "Deployment")


def _pods(overlay: str) -> Iterator[Manifest]:
    for manifest in rendered(overlay):
        pod = pod_of(manifest)
        if pod is not None:
            yield pod


def _container(pod: Manifest) -> Any:
    (container,) = pod["spec"]["containers"]
    return container


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_all_that_a_pod_refers_to_is_there(overlay: str) -> None:
    """These are its account, settings and volumes; the Secret alone is left to the operator."""
    names = {(each["kind"], each["metadata"]["name"]) for each in rendered(overlay)}
    namespaces = {each["metadata"].get("namespace", "pacesetter") for each in rendered(overlay)}
    assert namespaces == {"pacesetter"}
    for pod in _pods(overlay):
        spec, container = pod["spec"], _container(pod)
        assert ("ServiceAccount", spec["serviceAccountName"]) in names
        for source in container["envFrom"]:
            assert ("ConfigMap", source["configMapRef"]["name"]) in names
        claims = _workload(overlay)["spec"].get("volumeClaimTemplates", [])
        volumes = {each["name"] for each in spec["volumes"]}
        volumes |= {each["metadata"]["name"] for each in claims}
        assert {each["name"] for each in container["volumeMounts"]} == volumes
        secrets = [each["secret"]["secretName"] for each in spec["volumes"] if "secret" in each]
        assert secrets == ["pacesetter"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_the_pods_of_the_service(overlay: str) -> None:
    """The Service, the workload and the budget select the same pods, and no job's."""
    labels = pod_of(_workload(overlay))["metadata"]["labels"]  # type: ignore[index]
    service = _only(overlay, "Service")["spec"]
    selectors = [service["selector"], _workload(overlay)["spec"]["selector"]["matchLabels"]]
    if overlay == "postgres":
        selectors.append(_only(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"])
        job = pod_of(_only(overlay, "Job"))["metadata"]["labels"]  # type: ignore[index]
        assert not selectors[0].items() <= job.items()
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert "app.kubernetes.io/component" in selector
    ports = {each["name"] for each in _container(pod_of(_workload(overlay)))["ports"]}  # type: ignore[arg-type]
    assert {each["targetPort"] for each in service["ports"]} <= ports
    policy = _only(overlay, "NetworkPolicy")["spec"]
    for pod in _pods(overlay):
        assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert {each["port"] for rule in policy["ingress"] for each in rule["ports"]} <= ports


def test_the_network_policy_lets_dns_through() -> None:
    """Kustomize has written no label of ours into the selector of the cluster's own pods."""
    egress = _only("postgres", "NetworkPolicy")["spec"]["egress"]
    (dns,) = [rule for rule in egress if {"port": 53, "protocol": "UDP"} in rule["ports"]]
    assert dns["to"][0]["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_confined(overlay: str) -> None:
    """Each runs unprivileged, on a read-only root, without capabilities or API access."""
    for pod in _pods(overlay):
        spec, container = pod["spec"], _container(pod)
        own = spec["securityContext"]
        assert own["runAsNonRoot"]
        assert own["runAsUser"] == 10001  # the image's
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not spec["automountServiceAccountToken"]
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert not container["image"].endswith(":latest")
        assert ":" in container["image"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_what_takes_no_token(overlay: str) -> None:
    """Liveness checks the process alone, readiness the database too."""
    container = _container(pod_of(_workload(overlay)))  # type: ignore[arg-type]
    paths = {
        name: container[f"{name}Probe"]["httpGet"]["path"]
        for name in ("startup", "liveness", "readiness")
    }
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    assert all(ACCESS[f"GET {path}"] == "public" for path in paths.values())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_is_not_killed_while_it_drains(overlay: str) -> None:
    """The grace period covers the pause, the open requests, and the remaining seconds."""
    spec = pod_of(_workload(overlay))["spec"]  # type: ignore[index]
    pause = _container({"spec": spec})["lifecycle"]["preStop"]["exec"]["command"][-1]
    (seconds,) = re.findall(r"sleep\((\d+)\)", pause)
    drain = Settings.model_fields["shutdown_timeout"].default + LAST_SECONDS
    assert spec["terminationGracePeriodSeconds"] > int(seconds) + drain


def test_the_secret_is_described_as_it_is_read() -> None:
    """The page on making the Secret names each key that the settings refer to."""
    data = _only("postgres", "ConfigMap")["data"]
    files = [value for name, value in data.items() if name.endswith("_FILE")]
    keys = {Path(value).name for value in files}
    assert keys == SECRET_KEYS
    assert {str(Path(value).parent) for value in files} == {"/run/secrets/pacesetter"}
    page = (KUBERNETES.parents[1] / "docs/deployment.md").read_text()
    assert all(f"--from-file={key}=" in page for key in keys)


def test_sqlite_has_one_process_and_a_volume() -> None:
    """The one replica keeps its file, is stopped before the next one starts, and has no budget."""
    spec = _workload("sqlite")["spec"]
    assert spec["replicas"] == 1
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    mounts = {
        each["name"]: each["mountPath"]
        for each in spec["template"]["spec"]["containers"][0]["volumeMounts"]
    }
    data = _only("sqlite", "ConfigMap")["data"]
    assert data["PACESETTER_DATABASE_URL"].startswith(f"sqlite:///{mounts['data']}/")
    assert "PACESETTER_DATABASE_URL_FILE" not in data
    assert not [each for each in rendered("sqlite") if each["kind"] == "PodDisruptionBudget"]


def test_postgres_has_replicas_and_migrates_by_a_job() -> None:
    """Three replicas are rolled so that none stops before a new one is ready; a job migrates."""
    spec = _workload("postgres")["spec"]
    assert spec["replicas"] == 3
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    job = _only("postgres", "Job")["spec"]
    assert _container(job["template"])["args"] == ["migrate"]
    assert _container(job["template"])["image"] == _container(spec["template"])["image"]
