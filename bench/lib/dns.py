"""DNS queries for a clusterset.local name beside unbound and knot.

Each server is pinned to one core and has one thread for UDP; dnsperf has the other core.
"""

import re
import socket
import statistics
import struct

from lib import cluster
from lib.cluster import Cluster
from lib.harness import BenchError, require_free, wait_for
from lib.report import Column, Result, median, spread

NAME = "echo.bench.svc.clusterset.local"
OUTSTANDING = 100
# Queries a second at which the latency is taken.
CALM_RATE = 2000
COLUMNS = [
    Column("rate", "queries/s", 0),
    Column("cpu", "CPU us/query"),
    Column("spread", "lowest-highest"),
    Column("p50", "p50 ms", 3),
    Column("p99", "p99 ms", 3),
    Column("rss", "RSS MiB"),
]

UNBOUND = """
server:
  interface: {host}
  port: {port}
  num-threads: 1
  do-daemonize: no
  chroot: ""
  username: ""
  pidfile: "{folder}/unbound.pid"
  use-syslog: no
  verbosity: 0
  access-control: 127.0.0.0/8 allow
  module-config: "iterator"
  local-zone: "clusterset.local." static
  local-data: "{name}. 5 IN A 243.0.0.1"
remote-control:
  control-enable: no
"""

KNOT = """
server:
  listen: {host}@{port}
  rundir: {folder}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
log:
  - target: stderr
    any: warning
database:
  storage: {folder}
zone:
  - domain: clusterset.local
    file: {folder}/zone
"""

ZONE = """$ORIGIN clusterset.local.
@ 5 SOA ns hostmaster 1 3600 600 86400 5
@ 5 NS ns
ns 5 A 127.77.0.3
{name}. 5 A 243.0.0.1
"""


class Subject:
    """A server under test."""

    def __init__(self, name, process, address):
        self.name = name
        self.process = process
        self.address = address
        self.samples = []


def measure(bench):
    bench.tool("dnsperf", "apt-get install dnsperf")
    (bench.scratch / "queries").write_text(f"{NAME} A\n")
    subjects = [isthmus(bench)]
    for begin in (unbound, knot):
        subject = begin(bench)
        if subject is not None:
            subjects.append(subject)
    for subject in subjects:
        dnsperf(bench, subject, ["-l", "1"])
    for _, subject in bench.rounds(subjects):
        sample(bench, subject)
    return result(bench, subjects)


def isthmus(bench):
    made = Cluster(bench, "names", 31, ("controller", "ca", "dns"))
    made.write("backend", [*cluster.service("echo", "127.77.0.1", 8080), cluster.export("echo")])
    process = made.up(bench.proxy_core)
    return ready(Subject("Isthmus", process, (made.host(1), 15053)))


def unbound(bench):
    program = bench.peer("unbound", "apt-get install unbound")
    if program is None:
        return None
    address = ("127.77.0.20", 15053)
    path = bench.scratch / "unbound.conf"
    path.write_text(UNBOUND.format(host=address[0], port=address[1], folder=bench.scratch, name=NAME))
    return peer(bench, "unbound", [program, "-d", "-p", "-c", path], address)


def knot(bench):
    program = bench.peer("knotd", "apt-get install knot")
    if program is None:
        return None
    address = ("127.77.0.21", 15053)
    folder = bench.scratch / "knot"
    folder.mkdir()
    (folder / "zone").write_text(ZONE.format(name=NAME))
    path = folder / "knot.conf"
    path.write_text(KNOT.format(host=address[0], port=address[1], folder=folder))
    return peer(bench, "knot", [program, "-c", path], address)


def peer(bench, name, command, address):
    require_free([address], socket.SOCK_DGRAM)
    return ready(Subject(name, bench.start(name, command, bench.proxy_core), address))


def ready(subject):
    wait_for(f"an answer for {NAME}", lambda: resolves(subject.address), subject.process)
    return subject


def resolves(address):
    """Whether one A query is answered with a record."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in NAME.split("."))
    query = struct.pack(">6H", 77, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.5)
        try:
            probe.connect(address)
            probe.send(query)
            answer = probe.recv(4096)
        except OSError:
            return False
    return answer[3] & 15 == 0 and struct.unpack(">H", answer[6:8])[0] > 0


def sample(bench, subject):
    before = subject.process.usage()
    figures = dnsperf(bench, subject, ["-l", str(bench.plan.seconds), "-q", str(OUTSTANDING)])
    used = subject.process.usage() - before
    figures["cpu"] = used.total * 1e6 / figures["completed"]
    figures |= calm(bench, subject)
    figures["rss"] = subject.process.rss()
    subject.samples.append(figures)


def dnsperf(bench, subject, options):
    host, port = subject.address
    command = ["dnsperf", "-s", host, "-p", port, "-d", bench.scratch / "queries", "-T", "1", "-c", "8"]
    printed = bench.run([*command, *options], timeout=120)
    completed = figure(printed, r"Queries completed:\s+(\d+)")
    if completed == 0 or f"NOERROR {int(completed)}" not in printed:
        raise BenchError(f"{subject.name} did not answer all queries with NOERROR:\n{printed}")
    return {"completed": completed, "rate": figure(printed, r"Queries per second:\s+([\d.]+)"), "text": printed}


def calm(bench, subject):
    """Latency of single queries at a rate that no server here minds."""
    printed = dnsperf(bench, subject, ["-l", "1", "-Q", str(CALM_RATE), "-v"])["text"]
    times = [float(time) * 1000 for time in re.findall(r"^> NOERROR .* ([\d.]+)$", printed, re.MULTILINE)]
    cuts = statistics.quantiles(times, n=100)
    return {"p50": cuts[49], "p99": cuts[98]}


def figure(printed, pattern):
    match = re.search(pattern, printed)
    if not match:
        raise BenchError(f"dnsperf printed no figures: {printed}")
    return float(match[1])


def result(bench, subjects):
    title = f"dns: A {NAME} over UDP, {OUTSTANDING} outstanding (latency at {CALM_RATE} queries/s)"
    found = Result(bench, title, COLUMNS)
    for subject in subjects:
        values = {key: median(subject.samples, key) for key in ("rate", "cpu", "p50", "p99", "rss")}
        found.row(subject.name, spread=spread(subject.samples, "cpu"), **values)
    own = found.rows[0]["cpu"]
    for row in found.rows[1:]:
        found.ratio(f"CPU per query / {row['name']}", own / row["cpu"])
    return found
