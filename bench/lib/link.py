"""Bulk throughput of a link beside a raw quinn transfer.

Two pairs of clusters, one linked over QUIC and one over TCP (dialled through a TCP
relay). A download goes client -> ingress of the near cluster -> link -> backend behind
the far cluster; bytes are encrypted twice, by the mesh's TLS inside and by the link.
"""

import os
import sys
from pathlib import Path

from lib import cluster, load, peers
from lib.cluster import HOST, Cluster
from lib.harness import ROOT, BenchError, Usage, listens, require_free, wait_for
from lib.report import Column, Result, median, spread

MIB = 1 << 20
# What one second of --seconds downloads.
BYTES_A_SECOND = 128 * MIB
BACKEND = ("127.77.0.1", 8081)
QUINN = ("127.77.0.2", 15444)
COLUMNS = [
    Column("rate", "MiB/s", 0),
    Column("spread", "lowest-highest"),
    Column("cpu", "CPU s/GiB", 2),
    Column("near", "near end", 2),
    Column("far", "far end", 2),
    Column("rss", "RSS MiB"),
]


class Pair:
    """Two linked clusters."""

    def __init__(self, bench, transport, number):
        self.name = f"Isthmus over {transport.upper()}"
        self.bench = bench
        self.samples = []
        near = Cluster(bench, f"near-{transport}", number, ("ingress", "eastwest", "controller", "ca"))
        far = Cluster(bench, f"far-{transport}", number + 1, ("eastwest", "controller", "ca"))
        dialled = (far.host(1), 15443)
        if transport == "tcp":
            dialled = (far.host(2), 15443)
        write_manifests(near, far, ":".join(map(str, dialled)))
        self.far = far.up(bench.load_core)
        if transport == "tcp":
            relay(bench, dialled, (far.host(1), 15443))
        self.near = near.up(bench.proxy_core)
        self.address = (near.host(1), 8080)
        wait_for("an answer over the link", load.answers(self.address, HOST), self.near, 60)
        used = {peer["transport"] for peer in near.status()["peers"]}
        if used != {transport}:
            raise BenchError(f"the link uses {used} and not {transport}")

    def download(self, size):
        return load.bulk(self.address, HOST, "/files/bulk", timeout=60)

    def usage(self):
        return self.near.usage(), self.far.usage()

    def rss(self):
        return max(self.near.rss(), self.far.rss())


class RawQuinn:
    """core/link/examples/raw_quinn.rs; its receiver lives for one download."""

    def __init__(self, bench, program):
        self.name = "raw quinn"
        self.bench = bench
        self.program = program
        self.samples = []
        self.certificate = bench.scratch / "raw_quinn.der"
        command = [program, "serve", ":".join(map(str, QUINN)), self.certificate]
        self.server = bench.start("raw-quinn", command, bench.load_core)
        wait_for("the certificate of raw quinn", self.certificate.exists, self.server)
        self.used = Usage()

    def download(self, size):
        before = children()
        command = [self.program, "get", ":".join(map(str, QUINN)), self.certificate, size]
        count, seconds = self.bench.run(command, self.bench.proxy_core).split()
        self.used += children() - before
        return int(count), float(seconds)

    def usage(self):
        return self.used, self.server.usage()

    def rss(self):
        return self.server.rss()


def measure(bench):
    size = bench.plan.seconds * BYTES_A_SECOND
    files = bench.scratch / "files"
    files.mkdir()
    with open(files / "bulk", "wb") as bulk:
        bulk.truncate(size)
    peers.backend(bench, *BACKEND, bench.load_core, files)
    subjects = [Pair(bench, "quic", 11), Pair(bench, "tcp", 13)]
    program = Path(bench.binary).parent / "examples" / "raw_quinn"
    if program.is_file():
        subjects.append(RawQuinn(bench, program))
    else:
        build = "cargo build --profile dist -p isthmus-link --example raw_quinn"
        bench.missing.append(f"{program} ({build})")
    for subject in subjects:
        subject.download(min(size, 16 * MIB))
    for _, subject in bench.rounds(subjects):
        sample(subject, size)
    return result(bench, subjects)


def sample(subject, size):
    near, far = subject.usage()
    count, seconds = subject.download(size)
    if count != size:
        raise BenchError(f"{subject.name} gave {count} of {size} bytes")
    near, far = (after - before for after, before in zip(subject.usage(), (near, far)))
    gib = count / (1 << 30)
    figures = {"rate": count / MIB / seconds, "near": near.total / gib, "far": far.total / gib}
    figures |= {"cpu": figures["near"] + figures["far"], "rss": subject.rss()}
    subject.samples.append(figures)


def result(bench, subjects):
    size = bench.plan.seconds * BYTES_A_SECOND // MIB
    found = Result(bench, f"link: one download of {size} MiB, one connection, one stream", COLUMNS)
    for subject in subjects:
        values = {key: median(subject.samples, key) for key in ("rate", "cpu", "near", "far", "rss")}
        found.row(subject.name, spread=spread(subject.samples, "rate"), **values)
    rows = {row["name"]: row for row in found.rows}
    if raw := rows.get("raw quinn"):
        for name in ("Isthmus over QUIC", "Isthmus over TCP"):
            found.ratio(f"throughput of raw quinn / {name}", raw["rate"] / rows[name]["rate"])
            found.ratio(f"CPU of {name} / raw quinn", rows[name]["cpu"] / raw["cpu"])
    found.notes.append("near end and its client share one core, far end and the backend the other")
    return found


def write_manifests(near, far, dialled):
    near.write("link", [cluster.link(far.name, far.bundle(), [dialled], True)])
    far.write("link", [cluster.link(near.name, near.bundle(), [f"{near.host(1)}:15443"], False)])
    backend = {"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "bulk", "port": 80}
    near.write("gateway", [*cluster.gateway(), cluster.route("bulk", HOST, backend)])
    far.write("backend", [*cluster.service("bulk", *BACKEND), cluster.export("bulk")])


def relay(bench, listen, to):
    require_free([listen])
    script = ROOT / "bench" / "lib" / "tcp_relay.py"
    command = [sys.executable, script, *listen, *to]
    process = bench.start("tcp-relay", command, bench.load_core)
    wait_for("the TCP relay", listens(*listen), process)


def children():
    """CPU time of this process's children that have ended."""
    times = os.times()
    return Usage(times.children_user, times.children_system)
