"""Who is measured: its GatewayClass, and which pods are its parts."""

from .cluster import RunError

SYSTEM = "isthmus-system"


class Isthmus:
    """Isthmus as it is installed."""

    name = "Isthmus"
    gateway_class = "isthmus"

    def __init__(self, cluster):
        self.cluster = cluster

    def __enter__(self):
        path = f"/apis/apps/v1/namespaces/{SYSTEM}/deployments/isthmus-controller"
        if self.cluster.get(path) is None:
            raise RunError("Isthmus is not installed; tests/rig/isthmus-up does it")
        return self

    def __exit__(self, *_):
        pass

    def parts(self, namespace):
        """The pods by part; the leader is the one controller that does work."""
        found = {"controller": [], "east-west": [], "dns": [], "gateway": names(self.cluster, namespace)}
        for name in names(self.cluster, SYSTEM):
            for part, prefix in (
                ("controller", "isthmus-controller-"),
                ("east-west", "isthmus-eastwest-"),
                ("dns", "isthmus-dns-"),
            ):
                if name.startswith(prefix):
                    found[part].append(name)
        return found


def names(cluster, namespace):
    """The names of the pods of a namespace that run."""
    pods = cluster.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    return [pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") == "Running"]
