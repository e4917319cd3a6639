"""One Gateway with routes that answer by themselves, so that no backend is measured.

A route answers with a redirect to a path that names its version. An edit changes the
path; its time ends when the Gateway answers with the new one. Requests go one after the
other over one connection, so what is added to each time is one request.
"""

import http.client
import time

from .cluster import RunError, wait

GATEWAY_API = "/apis/gateway.networking.k8s.io/v1"
NAMESPACE = "isthmus-bench"
GATEWAY = "bench"
# How long each step may take, in seconds.
READY_MAX = 180
EDIT_MAX = 30
ROUTES_MAX = 900
GONE_MAX = 180
# How long memory settles before it is read.
SETTLE = 10


class Bench:
    """A namespace with one Gateway."""

    def __init__(self, cluster, subject):
        self.cluster = cluster
        self.subject = subject
        self.address = None
        self.connection = None

    def __enter__(self):
        path = f"/api/v1/namespaces/{NAMESPACE}"
        if self.cluster.get(path) is not None:
            raise RunError(f"the namespace {NAMESPACE} exists; delete it if an earlier run left it")
        try:
            self.cluster.apply(path, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        path = f"/api/v1/namespaces/{NAMESPACE}"
        self.cluster.delete(path)
        wait("the namespace goes", GONE_MAX, lambda: self.cluster.get(path) is None, pause=1)

    def start(self):
        path = f"{GATEWAY_API}/namespaces/{NAMESPACE}/gateways/{GATEWAY}"
        listeners = [{"name": "http", "port": 80, "protocol": "HTTP"}]
        self.cluster.apply(path, {
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"namespace": NAMESPACE, "name": GATEWAY},
            "spec": {"gatewayClassName": self.subject.gateway_class, "listeners": listeners},
        })

        def address():
            status = self.cluster.get(path).get("status", {})
            addresses = [one["value"] for one in status.get("addresses", [])]
            return addresses[0] if addresses else None

        self.address = wait("the Gateway has an address", READY_MAX, address)
        self.put(0, "first")
        wait("the first route answers", READY_MAX, lambda: self.location(0) == "/first")

    def measure(self, edits, routes):
        found = {"routes": routes, "edits": {}}
        found["edits"]["edit to answer, one route"] = self.edits(0, edits, "a")
        found["idle"] = self.memory()
        begin = time.monotonic()
        for number in range(1, routes):
            self.put(number, "first")
            if time.monotonic() - begin > ROUTES_MAX:
                raise RunError(f"{number} of {routes} routes were created after {ROUTES_MAX} s")
        wait("the last route answers", READY_MAX, lambda: self.location(routes - 1) == "/first", pause=0.01)
        found["created_ms"] = (time.monotonic() - begin) * 1000
        found["edits"][f"edit to answer, {routes} routes"] = self.edits(routes // 2, edits, "b")
        found["loaded"] = self.memory()
        return found

    def edits(self, number, count, word):
        """Milliseconds from the request that edits to the answer that has changed."""
        times = []
        for edit in range(count):
            version = f"{word}{edit}"
            begin = time.monotonic()
            self.put(number, version)
            end = begin + EDIT_MAX
            while self.location(number) != f"/{version}":
                if time.monotonic() > end:
                    raise RunError(f"an edit has no effect after {EDIT_MAX} s")
            times.append((time.monotonic() - begin) * 1000)
        return times

    def memory(self):
        """MiB by part: of the largest of its pods, since a standby does nothing."""
        time.sleep(SETTLE)
        parts = self.subject.parts(NAMESPACE)
        sizes = self.cluster.memory([pod for pods in parts.values() for pod in pods])
        found = {part: [sizes[pod] for pod in pods if pod in sizes] for part, pods in parts.items()}
        return {part: max(all_of_it) for part, all_of_it in found.items() if all_of_it}

    def put(self, number, version):
        name = f"route-{number}"
        path = f"{GATEWAY_API}/namespaces/{NAMESPACE}/httproutes/{name}"
        redirect = {
            "type": "RequestRedirect",
            "requestRedirect": {"path": {"type": "ReplaceFullPath", "replaceFullPath": f"/{version}"}},
        }
        body = {
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"namespace": NAMESPACE, "name": name},
            "spec": {
                "parentRefs": [{"name": GATEWAY}], "hostnames": [host(number)],
                "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "filters": [redirect]}],
            },
        }
        self.cluster.apply(path, body)

    def location(self, number):
        """The path that the Gateway redirects to; `None` while it does not answer."""
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(self.address, 80, timeout=5)
            self.connection.request("GET", "/x", headers={"Host": host(number)})
            answer = self.connection.getresponse()
            answer.read()
            location = answer.headers.get("Location", "")
            return "/" + location.rsplit("/", 1)[-1] if answer.status == 302 else None
        except (OSError, http.client.HTTPException):
            self.connection = None
            time.sleep(0.01)
            return None


def host(number):
    return f"host-{number}.bench.example"
