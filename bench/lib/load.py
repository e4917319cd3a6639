"""The load: wrk for HTTP, one connection for bulk."""

import json
import re
import socket
import time

from lib.harness import BenchError

# wrk prints rounded figures; this prints them as they are.
WRK_SCRIPT = """
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    'FIGURES {"requests": %d, "micros": %d, "p50": %d, "p99": %d, "errors": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def wrk(bench, url, host, connections, seconds):
    """Runs wrk with one thread; returns requests, requests/s, p50 and p99 in ms."""
    script = bench.scratch / "wrk.lua"
    script.write_text(WRK_SCRIPT)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, "-H", f"Host: {host}", url]
    printed = bench.run(command, timeout=seconds + 60)
    match = re.search(r"FIGURES (\{.*\})", printed)
    if not match:
        raise BenchError(f"wrk printed no figures: {printed}")
    figures = json.loads(match[1])
    if figures["errors"] or not figures["requests"]:
        raise BenchError(f"wrk met errors at {url} (Host: {host}): {figures}")
    return {
        "requests": figures["requests"],
        "rate": figures["requests"] / (figures["micros"] / 1e6),
        "p50": figures["p50"] / 1000,
        "p99": figures["p99"] / 1000,
    }


def get(address, host, path="/", timeout=5):
    """One GET on its own connection; returns the status and the body's beginning."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    try:
        with socket.create_connection(address, timeout) as connection:
            connection.sendall(request)
            answer = connection.recv(65536)
    except OSError:
        return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    match = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    return (int(match[1]) if match else 0), body


def answers(address, host):
    """For `wait_for`: whether a GET is answered with 200."""
    return lambda: get(address, host)[0] == 200


def bulk(address, host, path, timeout):
    """Downloads to the end; returns body bytes and seconds from the first of them."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    buffer = bytearray(BUFFER_BYTES)
    with socket.create_connection(address, timeout) as connection:
        begun = time.monotonic()
        connection.sendall(request)
        head = b""
        while b"\r\n\r\n" not in head:
            part = connection.recv(65536)
            if not part:
                raise BenchError(f"{address} ended the connection: {head!r}")
            head += part
        if not head.startswith(b"HTTP/1.1 200"):
            raise BenchError(f"{address} answered {head[:200]!r}")
        received = len(head.partition(b"\r\n\r\n")[2])
        while count := connection.recv_into(buffer):
            received += count
        return received, time.monotonic() - begun


BUFFER_BYTES = 1 << 20
