"""Isthmus clusters for the benchmarks: settings, manifests, processes.

A cluster has a network of its own, `127.77.<number>.0/24`, so that the default ports
can be used and no two benchmarks meet.
"""

import json
import urllib.request

from lib.harness import require_free, wait_for

HOST = "bench.example"


class Cluster:
    """The files of one cluster, and what runs of it."""

    def __init__(self, bench, name, number, roles, sidecars=()):
        self.bench = bench
        self.name = name
        self.number = number
        self.folder = bench.scratch / name
        self.manifests = self.folder / "manifests"
        self.manifests.mkdir(parents=True)
        self.roles = roles
        self.sidecars = sidecars
        self.processes = {}
        self.write_settings("cluster", 1)

    def host(self, last):
        return f"127.77.{self.number}.{last}"

    def write_settings(self, name, control):
        """A settings file; processes of one cluster differ in the ports that show the state."""
        main = self.host(1)
        enabled = {role: role in self.roles for role in ("ingress", "eastwest", "controller", "ca", "dns")}
        own = self.host(control)
        settings = {
            "cluster": self.name,
            "clusterset": "bench",
            "region": "here",
            "zone": "here-1",
            "workers": 1,
            "drain": {"delay": "0s", "deadline": "0s"},
            "ingress": {"enabled": enabled["ingress"], "address": main, "ports": {80: 8080}},
            "eastwest": {"enabled": enabled["eastwest"], "link": f"{main}:15443", "mesh": f"{main}:15008"},
            "controller": {
                "enabled": enabled["controller"],
                "discovery": f"{main}:15012",
                "federation": f"{main}:15013",
            },
            "ca": {"enabled": enabled["ca"]},
            "dns": {"enabled": enabled["dns"], "address": f"{main}:15053", "upstreams": [f"{main}:53"]},
            "telemetry": {
                "accessLog": "off",
                "sampling": 0,
                "metrics": f"{own}:15020",
                "ready": f"{own}:15021",
                "admin": f"{own}:15000",
            },
            "log": {"filter": "warn"},
            "sidecars": list(self.sidecars),
        }
        # JSON is YAML.
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(settings, indent=2))
        return path

    def write(self, name, objects):
        """A manifest file of several objects."""
        text = "\n---\n".join(json.dumps(entry) for entry in objects)
        (self.manifests / f"{name}.yaml").write_text(text)

    def bundle(self):
        return self.bench.run([self.bench.binary, "ca", "bundle", "-f", self.folder / "cluster.yaml"])

    def up(self, core):
        """All enabled roles in one process, ready."""
        control = (15000, 15020, 15021)
        ports = {
            "ingress": (8080,),
            "eastwest": (15443, 15008),
            "controller": (15012, 15013),
            "dns": (15053,),
        }
        wanted = [port for role in self.roles for port in ports.get(role, ())]
        require_free((self.host(1), port) for port in (*control, *wanted))
        command = [self.bench.binary, "up", "-f", self.folder / "cluster.yaml"]
        process = self.bench.start(f"isthmus-{self.name}", command, core)
        self.processes["up"] = process
        self.wait_ready(process, 1)
        return process

    def role(self, role, control, core, *arguments):
        """One role as a process of its own, ready."""
        path = self.write_settings(f"{role}-{control}", control)
        require_free((self.host(control), port) for port in (15000, 15020, 15021))
        command = [self.bench.binary, role, *arguments, "-f", path]
        process = self.bench.start(f"isthmus-{role}-{control}", command, core)
        self.wait_ready(process, control)
        return process

    def wait_ready(self, process, control):
        url = f"http://{self.host(control)}:15021/healthz/ready"
        wait_for(f"readiness of {process.name}", lambda: http_ok(url), process)

    def status(self):
        with urllib.request.urlopen(f"http://{self.host(1)}:15000/status", timeout=5) as answer:
            return json.load(answer)


def http_ok(url):
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def service(name, address, port, namespace="bench", headless=False):
    """Namespace, Service and EndpointSlice of a backend."""
    label = {"kubernetes.io/service-name": name}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "clusterIP": "10.77.0.1",
                "ports": [{"name": "http", "port": 80, "targetPort": port}],
            },
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-1", "namespace": namespace, "labels": label},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        },
    ]


def gateway(namespace="bench"):
    """GatewayClass and Gateway with one HTTP listener."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "isthmus"},
            "spec": {"controllerName": "isthmus.io/gateway-controller"},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {
                "gatewayClassName": "isthmus",
                "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
            },
        },
    ]


def route(name, host, backend, namespace="bench"):
    """An HTTPRoute of one host to one backend."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "parentRefs": [{"name": "web"}],
            "hostnames": [host],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                    "backendRefs": [backend],
                }
            ],
        },
    }


def export(name, namespace="bench"):
    return {
        "apiVersion": "multicluster.x-k8s.io/v1beta1",
        "kind": "ServiceExport",
        "metadata": {"name": name, "namespace": namespace},
    }


def link(peer, bundle, addresses, dial):
    """A ClusterLink that imports and exports everything."""
    everything = [{"namespaces": ["*"], "names": ["*"]}]
    return {
        "apiVersion": "isthmus.io/v1alpha1",
        "kind": "ClusterLink",
        "metadata": {"name": peer},
        "spec": {
            "trustDomain": f"{peer}.bench",
            "addresses": addresses,
            "dial": dial,
            "bundle": {"inline": bundle},
            "import": everything,
            "export": everything,
        },
    }
