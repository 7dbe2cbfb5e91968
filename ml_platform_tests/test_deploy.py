"""The files in deploy/: each is whole, names what is there, and says of the service what is true of it."""

import http.client
import json
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from ml_platform.cli import main
from ml_platform.resources.projects import load_project
from ml_platform.serving import shipped
from ml_platform.serving.access import HEALTH, key_file
from ml_platform.serving.client import Client
from ml_platform.serving.image_texts import texts
from ml_platform.serving.meters import Meters
from ml_platform.serving.process import ServiceProcess, listen, running
from ml_platform.spec.services import Service
from ml_platform_tests.services import must
from ml_platform_tests.serving_world import NOON, ROW, standard

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
IN_FRONT = [DEPLOY / "front" / "nginx.conf", DEPLOY / "front" / "envoy.yaml", DEPLOY / "kubernetes" / "gateway.yaml"]
VERSION = "1.34"  # of Kubernetes
# Kinds that others add; no schema of theirs is at hand, so only what they refer to is looked at.
ADDED = {"keda.sh/v1alpha1", "gateway.networking.k8s.io/v1", "monitoring.coreos.com/v1"}
ASKED = {"/predict", "/label", "/ingest", "/model"}


class Unique(yaml.SafeLoader):
    """Refuses a key that stands twice, which YAML forbids and PyYAML reads."""


def _unique(loader: Unique, node: yaml.MappingNode) -> dict[Any, Any]:
    names = [key.value for key, _ in node.value if key.value != "<<"]
    assert len(names) == len(set(names)), f"line {node.start_mark.line + 1}: a key stands twice"
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


Unique.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique)


def documents(path: Path) -> list[dict[str, Any]]:
    return [found for found in yaml.load_all(path.read_text(), Unique) if found]


ALL = [(path.name, document) for path in KUBERNETES for document in documents(path)]


def kind(*names: str) -> list[dict[str, Any]]:
    return [document for _, document in ALL if document["kind"] in names]


def pods() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, labels and spec of each kind of pod."""
    for document in kind("Deployment", "StatefulSet"):
        template = document["spec"]["template"]
        yield document["metadata"]["name"], template["metadata"]["labels"], template["spec"]


@pytest.mark.parametrize(("name", "document"), ALL, ids=[f"{name}:{each['kind']}" for name, each in ALL])
def test_a_manifest_is_valid_by_the_schemas_of_kubernetes(name: str, document: dict[str, Any]) -> None:
    if document["apiVersion"] in ADDED:
        assert document["metadata"]["name"]
        assert document["spec"]
    else:
        assert kubernetes_validate.validate(document, VERSION, strict=True) == VERSION


def test_the_schemas_do_find_what_is_wrong() -> None:
    document = json.loads(json.dumps(kind("StatefulSet")[0]))
    document["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_what_manifests_refer_to_is_there() -> None:
    labels = [found for _, found, _ in pods()]
    ports = {port["name"] for _, _, spec in pods() for one in spec["containers"] for port in one.get("ports", ())}
    services = {each["metadata"]["name"]: each["spec"] for each in kind("Service")}
    for spec in services.values():
        assert spec["selector"] in labels
        assert {port["targetPort"] for port in spec["ports"]} <= ports
    for document in kind("StatefulSet"):
        assert document["spec"]["serviceName"] in services
    for document in kind("PodDisruptionBudget", "Deployment", "StatefulSet", "PodMonitor"):
        assert document["spec"]["selector"]["matchLabels"] in labels
    workloads = {(each["kind"], each["metadata"]["name"]) for each in kind("Deployment", "StatefulSet")}
    for document in kind("HorizontalPodAutoscaler", "ScaledObject"):
        target = document["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) in workloads
    (route,) = kind("HTTPRoute")
    (gateway,) = kind("Gateway")
    assert [each["name"] for each in route["spec"]["parentRefs"]] == [gateway["metadata"]["name"]]
    for backend in route["spec"]["rules"][0]["backendRefs"]:
        assert backend["port"] in {port["port"] for port in services[backend["name"]]["ports"]}
    for (endpoint,) in (each["spec"]["podMetricsEndpoints"] for each in kind("PodMonitor")):
        assert endpoint["port"] in ports
        assert endpoint["path"] == "/metrics"
    claims = {each["metadata"]["name"] for each in kind("PersistentVolumeClaim")}
    for _, _, spec in pods():
        mounted = {each["name"] for one in spec["containers"] for each in one.get("volumeMounts", ())}
        volumes = {each["name"] for each in spec["volumes"]}
        assert mounted - volumes <= {"state"}  # of the StatefulSet, made from its template
        asked = {
            each["persistentVolumeClaim"]["claimName"] for each in spec["volumes"] if "persistentVolumeClaim" in each
        }
        assert asked <= claims


def test_pods_are_no_root_and_drain_before_they_end() -> None:
    for name, _, spec in pods():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        for one in spec["containers"]:
            if one["name"] != "worker":
                continue
            probes = [one[f"{which}Probe"]["httpGet"]["path"] for which in ("startup", "readiness", "liveness")]
            assert set(probes) <= HEALTH, name  # open, whoever asks
            pause = int(one["lifecycle"]["preStop"]["exec"]["command"][1])
            assert pause + 10 < spec["terminationGracePeriodSeconds"]  # what a service takes after SIGTERM
    (judged,) = (spec for name, _, spec in pods() if name == "delay-rollouts")
    worker, referee = judged["containers"]
    assert (worker["name"], referee["name"]) == ("worker", "referee")
    shares = [{each["mountPath"] for each in one["volumeMounts"]} for one in (worker, referee)]
    assert "/state" in shares[0] & shares[1]
    assert judged["shareProcessNamespace"] is True


def test_commands_that_files_name_are_commands_and_their_options_exist() -> None:
    named = [one["command"] for _, _, spec in pods() for one in spec["containers"] if "command" in one]
    compose = documents(DEPLOY / "compose.yaml")[0]["services"].values()
    named += [each["command"].split() for each in compose if str(each.get("command", "")).startswith("ml-platform")]
    assert len(named) >= 3
    for program, name, *words in named:
        assert program == "ml-platform"
        command = main.commands[name]
        options = {option for each in command.params if isinstance(each, click.Option) for option in each.opts}
        assert {word for word in words if word.startswith("--")} <= options
    (worker,) = (one for name, _, spec in pods() for one in spec["containers"] if name == "delay")
    assert worker["args"] == ["--host", "0.0.0.0"]
    assert "delay" in load_project("ml_platform.projects.flights").services


def exported() -> set[str]:
    """Names of the metrics of a serving process, once something was counted."""
    registry = CollectorRegistry()
    meters = Meters("delay", registry)
    meters._counts["/predict", 503] = 1
    meters._timed["/predict"] = [1.0] * 16
    meters.flush()
    lines = generate_latest(registry).decode().splitlines()
    return {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")}


def test_every_metric_that_a_file_names_is_exported() -> None:
    files = [path for path in DEPLOY.rglob("*") if path.suffix in (".yaml", ".yml", ".conf", ".md", ".json")]
    named = {
        (path.name, name)
        for path in files
        for name in re.findall(r"\bml_platform_(?:requests?|turns?)\w*", path.read_text())
    }
    assert {"keda.yaml", "hpa.yaml", "production.md"} <= {file for file, _ in named}
    there = exported() | {name.removesuffix("_bucket") for name in exported()}
    assert {(file, name) for file, name in named if name not in there} == set()


def test_every_file_that_a_dockerfile_or_compose_copies_is_there() -> None:
    for path in (DEPLOY / "Dockerfile", DEPLOY / "training.Dockerfile"):
        text = path.read_text()
        sources = [word for line in re.findall(r"^COPY (.+)$", text, re.M) for word in line.split()[:-1]]
        assert {"requirements.lock", "deploy/dagster.yaml"} <= set(sources)
        assert [source for source in sources if not (ROOT / source).exists()] == []
        assert re.search(r"^USER [1-9]\d+$", text, re.M)
    training = (DEPLOY / "training.Dockerfile").read_text()
    assert 'CMD ["dagster-daemon", "run", "-w", "workspace.yaml"]' in training
    assert "ml_platform.serving" not in training
    compose = documents(DEPLOY / "compose.yaml")[0]
    built = {each["build"]["dockerfile"] for each in compose["services"].values() if "build" in each}
    assert built == {"deploy/Dockerfile", "deploy/training.Dockerfile"}
    assert compose["services"]["daemon"]["build"]["dockerfile"] == "deploy/training.Dockerfile"


def test_the_image_writes_for_any_version_what_the_manifests_expect() -> None:
    """The same user, port and argument."""
    one = shipped.Shipped(
        service="delay",
        model="delay_lightgbm",
        version="3",
        project="p",
        made=NOON,
        digests={},
        allowed={"line": 1, "kind": "promotion"},
        folder=Path(),
    )
    text = texts(one, [], "26.3")["Dockerfile"]
    assert re.search(r"^USER 10001$", text, re.M)
    assert {spec["securityContext"]["runAsUser"] for _, _, spec in pods()} == {10001}
    assert f"EXPOSE {shipped.PORT}" in text
    assert {
        port["containerPort"] for _, _, spec in pods() for c in spec["containers"] for port in c.get("ports", ())
    } == {shipped.PORT}


# In front of several replicas


def test_all_that_stand_in_front_let_the_same_endpoints_through() -> None:
    nginx, envoy = IN_FRONT[0].read_text(), documents(IN_FRONT[1])[0]
    (pattern,) = re.findall(r"location ~ (\S+) \{", nginx)
    chain = envoy["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    (routed,) = chain["route_config"]["virtual_hosts"][0]["routes"]
    (route,) = kind("HTTPRoute")
    gateway = {each["path"]["value"] for each in route["spec"]["rules"][0]["matches"]}
    paths = [*ASKED, *HEALTH, "/metrics", "/", "/docs.json", "/schema.json", "/predict/x", "/x/predict"]
    through = {path for path in paths if re.search(pattern, path)}
    assert through == {path for path in paths if re.fullmatch(routed["match"]["safe_regex"]["regex"], path)}
    assert through == ASKED | {"/readyz"}
    assert gateway == ASKED
    clusters = {each["name"] for each in envoy["static_resources"]["clusters"]}
    assert routed["route"]["cluster"] in clusters
    names = re.findall(r"cluster: (\w+)", IN_FRONT[1].read_text())
    assert set(names) <= clusters
    assert chain["http_filters"][-1]["name"] == "envoy.filters.http.router"


def test_bodies_and_times_in_front_fit_those_of_the_service() -> None:
    nginx, largest = IN_FRONT[0].read_text(), 4 * 2**20
    (size,) = re.findall(r"client_max_body_size (\d+)m;", nginx)
    assert int(size) * 2**20 == largest
    assert f"max_request_bytes: {largest}" in IN_FRONT[1].read_text()
    declared = load_project("ml_platform.projects.flights").services["delay"]
    assert 4096 * declared.max_rows <= largest
    assert Service(model="m", description="d").answer_within < timedelta(seconds=4)  # until the next one is tried


needs_nginx = pytest.mark.service("nginx")


def configured(folder: Path, servers: list[int], port: int) -> Path:
    """The shipped file with other addresses, and a certificate of our own."""
    tls = folder / "tls"
    tls.mkdir()
    make_certificate(tls)
    text = IN_FRONT[0].read_text()
    for old, new in (
        ("/etc/nginx/tls/", f"{tls}/"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/run/nginx.pid", f"{folder}/nginx.pid"),
        ("/dev/stdout", f"{folder}/access.log"),
        ("delay-0.internal:3000", f"127.0.0.1:{servers[0]}"),
        ("delay-1.internal:3000", f"127.0.0.1:{servers[1]}"),
    ):
        assert old in text
        text = text.replace(old, new)
    bodies = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("http {\n", f"http {{\n{bodies}", 1)
    (folder / "nginx.conf").write_text(text)
    return folder / "nginx.conf"


def make_certificate(folder: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]),
    )
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "tls.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))


@needs_nginx
def test_nginx_takes_the_file(tmp_path: Path) -> None:
    file = configured(tmp_path, [3000, 3001], 8443)
    done = subprocess.run(
        [must("nginx"), "-e", "stderr", "-t", "-c", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "test is successful" in done.stderr


@needs_nginx
@pytest.mark.long
def test_a_replica_that_ends_behind_nginx_costs_no_request_and_keys_hold(
    tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for tiny in standard(tmp_path / "world"):
        key = key_file(tiny.profile, "desk").add("ann", ["predict"], NOON, lambda: None)
        with running(tiny.profile, "desk") as first, running(tiny.profile, "desk") as second:
            port = free_port()
            file = configured(tmp_path, [first.port, second.port], port)
            trusted = ssl.create_default_context(cafile=tmp_path / "tls" / "tls.crt")
            with subprocess.Popen([must("nginx"), "-e", "stderr", "-g", "daemon off;", "-c", file]) as nginx:
                try:
                    assert ended_meanwhile(port, trusted, key, first) == {200}
                    assert ask(port, trusted, "/predict", None, "nobody") == 401
                    assert ask(port, trusted, "/metrics", key, "nobody") == 404
                    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls" / "tls.crt"))
                    client = Client(f"https://localhost:{port}", key=key)
                    assert client.predict([{**ROW, "trip": "typed"}], NOON).model_version == "1"
                    assert key not in (tmp_path / "access.log").read_text()
                finally:
                    nginx.terminate()


def ended_meanwhile(port: int, trusted: ssl.SSLContext, key: str, replica: ServiceProcess) -> set[int]:
    """The statuses of requests while one of the two replicas is told to end and ends."""
    stop, told = threading.Event(), []

    def asks(worker: int) -> None:
        while not stop.is_set():
            told.append(ask(port, trusted, "/predict", key, f"{worker}-{len(told)}"))

    deadline = time.monotonic() + 10
    while True:
        try:
            ask(port, trusted, "/readyz", None, "first")
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    askers = [threading.Thread(target=asks, args=(n,)) for n in range(4)]
    for asker in askers:
        asker.start()
    time.sleep(1)
    replica.stop()
    time.sleep(1)
    stop.set()
    for asker in askers:
        asker.join()
    assert len(told) > 100
    return set(told)


def ask(port: int, trusted: ssl.SSLContext, path: str, key: str | None, name: str) -> int:
    connection = http.client.HTTPSConnection("localhost", port, timeout=20, context=trusted)
    try:
        body = {"rows": [{**ROW, "trip": name}], "asked_at": NOON.isoformat()}
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        connection.request("POST" if path == "/predict" else "GET", path, json.dumps(body), headers)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture
def free_port() -> Callable[[], int]:
    def found() -> int:
        with listen("127.0.0.1", 0) as taken:
            return int(taken.getsockname()[1])

    return found
