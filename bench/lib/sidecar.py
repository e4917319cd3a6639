"""Small requests through a pair of sidecars beside a direct call, and an idle sidecar.

Every part is a process of its own: authority, controller, the caller's sidecar, the
callee's sidecar, and one that nobody uses. client -> outbound -> mTLS, HTTP/2 -> inbound
-> backend. Both sidecars share one core, load and backend the other.
"""

import time

from lib import cluster, load, peers
from lib.cluster import Cluster
from lib.harness import wait_for
from lib.report import Column, Result, median

# The workloads' addresses are the last numbers of the cluster's network.
NUMBER, CLIENT, SERVER, IDLE = 21, 10, 11, 12
APPLICATION_PORT = 9000
HOST = "echo.bench.svc.cluster.local"
BUSY_CONNECTIONS = 64
IDLE_SECONDS = 3
COLUMNS = [
    Column("connections", "connections", 0),
    Column("rate", "requests/s", 0),
    Column("p50", "p50 ms", 3),
    Column("p99", "p99 ms", 3),
    Column("cpu", "CPU us/request"),
    Column("outbound", "outbound"),
    Column("inbound", "inbound"),
]


def measure(bench):
    bench.tool("wrk", "apt-get install wrk")
    made, outbound, inbound, idle = start(bench)
    time.sleep(IDLE_SECONDS)
    resting = {"rss": idle.rss(), "anonymous": idle.anonymous()}
    direct = f"http://{made.host(SERVER)}:{APPLICATION_PORT}/"
    meshed = f"http://{made.host(CLIENT)}:15001/"
    subjects = [
        (name, url, connections, [])
        for connections in (1, BUSY_CONNECTIONS)
        for name, url in (("direct", direct), ("through two sidecars", meshed))
    ]
    for _, url, connections, _ in subjects:
        load.wrk(bench, url, HOST, connections, 1)
    for _, (_, url, connections, samples) in bench.rounds(subjects):
        before = outbound.usage(), inbound.usage()
        figures = load.wrk(bench, url, HOST, connections, bench.plan.seconds)
        micros = 1e6 / figures["requests"]
        figures["outbound"] = (outbound.usage() - before[0]).total * micros
        figures["inbound"] = (inbound.usage() - before[1]).total * micros
        figures["cpu"] = figures["outbound"] + figures["inbound"]
        samples.append(figures)
    return result(bench, subjects, resting, (outbound, inbound))


def start(bench):
    made = Cluster(bench, "mesh", NUMBER, ("controller", "ca"), sidecars())
    peers.backend(bench, made.host(SERVER), APPLICATION_PORT, bench.load_core)
    made.write("backend", cluster.service("echo", made.host(SERVER), APPLICATION_PORT))
    made.role("ca", 2, bench.load_core)
    made.role("controller", 3, bench.load_core)
    inbound = made.role("sidecar", 4, bench.proxy_core, "--name", "server")
    outbound = made.role("sidecar", 5, bench.proxy_core, "--name", "client")
    idle = made.role("sidecar", 6, bench.proxy_core, "--name", "idle")
    address = (made.host(CLIENT), 15001)
    wait_for("an answer through the sidecars", load.answers(address, HOST), outbound)
    return made, outbound, inbound, idle


def sidecars():
    def sidecar(name, last, **more):
        address = f"127.77.{NUMBER}.{last}"
        return {
            "name": name,
            "namespace": "bench",
            "serviceAccount": name,
            "address": address,
            "ports": [APPLICATION_PORT],
            "mesh": f"{address}:15008",
            **more,
        }

    return (
        sidecar("client", CLIENT, outbound=f"127.77.{NUMBER}.{CLIENT}:15001"),
        sidecar("server", SERVER),
        sidecar("idle", IDLE, outbound=f"127.77.{NUMBER}.{IDLE}:15001"),
    )


def result(bench, subjects, resting, used):
    found = Result(bench, "sidecar: HTTP/1.1 keep-alive, 64-byte body, one worker", COLUMNS)
    rows = {}
    for name, _, connections, samples in subjects:
        keys = ["rate", "p50", "p99"]
        if name != "direct":
            keys += ["cpu", "outbound", "inbound"]
        values = {key: median(samples, key) for key in keys}
        found.row(name, connections=connections, **values)
        rows[name, connections] = values
    for key in ("p50", "p99"):
        added = rows["through two sidecars", 1][key] - rows["direct", 1][key]
        found.ratio(f"{key} added by two sidecars, one connection, ms", added)
    found.ratio("RSS of an idle sidecar, MiB", resting["rss"], 15)
    found.notes.append(f"of it anonymous memory: {resting['anonymous']:.1f} MiB, the rest is the binary")
    busy = ", ".join(f"{process.rss():.1f}" for process in used)
    found.notes.append(f"RSS of the two sidecars after the load: {busy} MiB")
    return found
