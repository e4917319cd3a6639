"""Processes, cores, ports and CPU time.

Everything that is started is a child of this process, is pinned, logs into the scratch
folder, and is ended by its own process id, also after an error or a signal.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "bench" / "out"
TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """What stops a benchmark, in words for its user."""


class Plan:
    """How long and how often is measured."""

    def __init__(self, seconds, rounds):
        self.seconds = seconds
        self.rounds = rounds

    @classmethod
    def quick(cls):
        return cls(1, 1)


class Usage:
    """CPU time of a process and of all below it, in seconds."""

    def __init__(self, user=0.0, kernel=0.0):
        self.user = user
        self.kernel = kernel

    @property
    def total(self):
        return self.user + self.kernel

    def __sub__(self, other):
        return Usage(self.user - other.user, self.kernel - other.kernel)

    def __add__(self, other):
        return Usage(self.user + other.user, self.kernel + other.kernel)


class Process:
    """A child process."""

    def __init__(self, name, command, core, log, env=None):
        self.name = name
        self.log = log

        def prepare():
            os.sched_setaffinity(0, {core})
            # Ends with this process, also when this one is killed outright.
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

        with open(log, "wb") as sink:
            self.child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                preexec_fn=prepare,
                env=env,
            )

    def pids(self):
        """The process and those below it."""
        found, queue = [], [self.child.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                queue.extend(int(child) for child in children.read_text().split())
        return found

    def usage(self):
        return sum((stat_usage(f"/proc/{pid}/stat") for pid in self.pids()), Usage())

    def thread_usage(self, prefix):
        """CPU time of the threads whose name begins with `prefix`."""
        total = Usage()
        for comm in Path(f"/proc/{self.child.pid}/task").glob("*/comm"):
            if comm.read_text().startswith(prefix):
                total += stat_usage(comm.parent / "stat")
        return total

    def rss(self):
        """Resident memory in MiB: of the largest of its processes, since pages are shared."""
        return max(memory(pid, "VmRSS") for pid in self.pids())

    def anonymous(self):
        """The part of the resident memory that is no file, in MiB."""
        return max(memory(pid, "RssAnon") for pid in self.pids())

    def check(self):
        if self.child.poll() is not None:
            raise BenchError(f"{self.name} ended with {self.child.returncode}:\n{self.tail()}")

    def tail(self):
        lines = self.log.read_text(errors="replace").splitlines()[-12:]
        return "\n".join(f"    {line}" for line in lines) or "    (it said nothing)"

    def end(self):
        if self.child.poll() is not None:
            return
        self.child.terminate()
        try:
            self.child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Bench:
    """One run: scratch folder, cores, processes."""

    def __init__(self, name, plan, binary):
        self.name = name
        self.plan = plan
        self.scratch = OUT / f"work-{name}"
        self.binary = find_binary(binary)
        self.processes = []
        self.missing = []
        self.cores = sorted(os.sched_getaffinity(0))
        if len(self.cores) < 2:
            raise BenchError("two cores are needed: one for the proxy, one for load and backend")

    def __enter__(self):
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.end()

    @property
    def proxy_core(self):
        return self.cores[0]

    @property
    def load_core(self):
        return self.cores[1]

    def start(self, name, command, core, env=None):
        process = Process(name, command, core, self.scratch / f"{name}.log", env)
        self.processes.append(process)
        return process

    def run(self, command, core=None, timeout=120, stdin=None):
        """Runs a command to its end and returns what it printed."""
        core = self.load_core if core is None else core
        try:
            done = subprocess.run(
                [str(part) for part in command],
                capture_output=True,
                input=stdin,
                text=True,
                timeout=timeout,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{command[0]} did not end within {timeout} s") from error
        if done.returncode != 0:
            raise BenchError(f"{command[0]} failed with {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout

    def tool(self, program, package):
        """A program that must be there."""
        path = find_program(program)
        if path is None:
            raise BenchError(f"{program} is needed: {package}")
        return path

    def peer(self, program, package):
        """A program that is measured when it is there; named as missing otherwise."""
        path = find_program(program)
        if path is None:
            self.missing.append(f"{program} ({package})")
        return path

    def rounds(self, subjects):
        """(round, subject), interleaved, each round beginning with another subject."""
        for number in range(self.plan.rounds):
            first = number % len(subjects)
            for subject in subjects[first:] + subjects[:first]:
                for process in self.processes:
                    process.check()
                yield number, subject


def find_binary(given):
    path = Path(given) if given else ROOT / "target" / "dist" / "isthmus"
    if not path.is_file():
        raise BenchError(f"{path} is not there: cargo build --profile dist -p isthmus, or --bin PATH")
    return path.resolve()


def find_program(program):
    venv = next(OUT.glob(f"envoy/lib/python*/site-packages/envoy/_bin/{program}"), None)
    return venv or shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def require_free(addresses, kind=socket.SOCK_STREAM):
    """Fails when one of the addresses is taken."""
    for host, port in addresses:
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                reason = f"{host}:{port} cannot be used: {error.strerror}"
                raise BenchError(f"{reason}; is another bench/run going on?") from error


def wait_for(what, ready, process, seconds=30):
    """Waits until `ready()` is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        process.check()
        if ready():
            return
        time.sleep(0.1)
    raise BenchError(f"{what} did not happen within {seconds} s; {process.name} said:\n{process.tail()}")


def listens(host, port):
    def ready():
        try:
            socket.create_connection((host, port), 1).close()
        except OSError:
            return False
        return True

    return ready


def stat_usage(path):
    # Fields after the command's name, which may hold spaces: 14 and 15 of proc_pid_stat(5).
    fields = Path(path).read_text().rpartition(")")[2].split()
    return Usage(int(fields[11]) / TICKS, int(fields[12]) / TICKS)


def memory(pid, field):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return 0.0


# Time for a process to end after SIGTERM; the clusters here drain at once.
END_SECONDS = 10
