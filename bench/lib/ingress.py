"""The ingress path beside nginx, HAProxy and Envoy.

Each proxy is pinned to one core, the load and the backend to another; CPU time is that
of the whole proxy process, also for Isthmus, whose controller is in it.
"""

import statistics

from lib import cluster, load, peers
from lib.cluster import HOST, Cluster
from lib.harness import wait_for
from lib.report import Column, Result, median, spread

CONNECTIONS = 64
ROUTES = 1000
BACKEND = ("127.77.0.1", 8080)
COLUMNS = [
    Column("rate", "requests/s", 0),
    Column("cpu", "CPU us/request"),
    Column("user", "user"),
    Column("kernel", "kernel"),
    Column("spread", "lowest-highest"),
    Column("p50", "p50 ms", 2),
    Column("p99", "p99 ms", 2),
    Column("rss", "RSS MiB"),
]


class Subject:
    """A proxy under test."""

    def __init__(self, name, process, url, host, thread=None):
        self.name = name
        self.process = process
        self.url = url
        self.host = host
        self.thread = thread
        self.samples = []


def measure(bench):
    bench.tool("wrk", "apt-get install wrk")
    peers.backend(bench, *BACKEND, bench.load_core)
    subjects = start(bench)
    for subject in subjects:
        # Connections to the backend are opened, caches are warm.
        load.wrk(bench, subject.url, subject.host, CONNECTIONS, 1)
    for _, subject in bench.rounds(subjects):
        sample(bench, subject)
    return result(bench, subjects)


def start(bench):
    found = [
        Subject("Isthmus", isthmus(bench, "one", 1, []), "http://127.77.1.1:8080/", HOST, "ingress"),
        many(bench),
    ]
    for name, begin, last in (
        ("nginx", peers.nginx_proxy, 10),
        ("HAProxy", peers.haproxy, 11),
        ("Envoy", peers.envoy, 12),
    ):
        listen = (f"127.77.0.{last}", 8080)
        process = begin(bench, listen, BACKEND)
        if process is not None:
            found.append(Subject(name, process, f"http://{listen[0]}:{listen[1]}/", HOST))
    return found


def many(bench):
    others = [f"host-{number}.example" for number in range(ROUTES - 1)]
    process = isthmus(bench, "many", 2, others)
    host = others[len(others) // 2]
    return Subject(f"Isthmus, {ROUTES} routes", process, "http://127.77.2.1:8080/", host, "ingress")


def isthmus(bench, name, number, others):
    made = Cluster(bench, name, number, ("ingress", "controller", "ca"))
    made.write("backend", cluster.service("echo", *BACKEND))
    hosts = [HOST, *others]
    target = {"name": "echo", "port": 80}
    routes = [cluster.route(f"route-{at}", host, target) for at, host in enumerate(hosts)]
    made.write("gateway", [*cluster.gateway(), *routes])
    process = made.up(bench.proxy_core)
    address = (made.host(1), 8080)
    wait_for("an answer through the ingress", load.answers(address, hosts[-1]), process)
    return process


def sample(bench, subject):
    before = subject.process.usage()
    thread_before = subject.process.thread_usage(subject.thread) if subject.thread else None
    figures = load.wrk(bench, subject.url, subject.host, CONNECTIONS, bench.plan.seconds)
    used = subject.process.usage() - before
    micros = 1e6 / figures["requests"]
    figures |= {"cpu": used.total * micros, "user": used.user * micros, "kernel": used.kernel * micros}
    if thread_before:
        thread = subject.process.thread_usage(subject.thread) - thread_before
        figures["thread"] = thread.total * micros
    figures["rss"] = subject.process.rss()
    subject.samples.append(figures)


def result(bench, subjects):
    title = f"ingress: HTTP/1.1 keep-alive, {CONNECTIONS} connections, 64-byte body, one worker"
    found = Result(bench, title, COLUMNS)
    keys = ("rate", "cpu", "user", "kernel", "p50", "p99", "rss")
    for subject in subjects:
        values = {key: median(subject.samples, key) for key in keys}
        found.row(subject.name, spread=spread(subject.samples, "cpu"), **values)
    thread = median(subjects[0].samples, "thread")
    found.notes.append(f"the ingress thread alone: {thread:.1f} us/request")
    ratios(found, {subject.name: [each["cpu"] for each in subject.samples] for subject in subjects})
    return found


def ratios(found, cpu):
    own = cpu["Isthmus"]
    # The better one is chosen once, by its median: the lower of two noisy figures in each
    # round would be lower than either.
    present = [name for name in ("nginx", "HAProxy") if name in cpu]
    if present:
        best = min(present, key=lambda name: statistics.median(cpu[name]))
        name = f"CPU per request / {best}, the better of nginx and HAProxy"
        found.paired(name, own, cpu[best], 1.3)
    if "Envoy" in cpu:
        found.paired("CPU per request / Envoy", own, cpu["Envoy"], 0.5)
    many = cpu[f"Isthmus, {ROUTES} routes"]
    found.paired(f"CPU per request with {ROUTES} routes / with one", many, own)
