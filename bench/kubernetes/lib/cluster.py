"""The API server over one kept connection, and the memory of the processes of pods."""

import base64
import http.client
import json
import ssl
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
RIG = ROOT / "tests" / "rig" / "bin" / "rig"
# How long one request may take, in seconds.
REQUEST_MAX = 30
FIELD_MANAGER = "isthmus-bench"


class RunError(Exception):
    """What stops a benchmark, in words for its user."""


class Cluster:
    """One cluster, as its administrator."""

    def __init__(self, kubeconfig, context):
        if not Path(kubeconfig).is_file():
            raise RunError(f"{kubeconfig} does not exist; tests/rig/isthmus-up makes it")
        command = [RIG, "kubectl", "--kubeconfig", kubeconfig, "--context", context]
        command += ["config", "view", "--raw", "--minify", "-o", "json"]
        view = json.loads(run(command))
        cluster, user = view["clusters"][0]["cluster"], view["users"][0]["user"]
        self.url = urllib.parse.urlsplit(cluster["server"])
        self.context = ssl.create_default_context(cadata=pem(cluster, "certificate-authority"))
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(pem(user, "client-certificate") + "\n" + pem(user, "client-key"))
            file.flush()
            self.context.load_cert_chain(file.name)
        self.connection = None

    def request(self, method, path, body=None, content_type="application/json"):
        """The status and the object of an answer; `body` is text or a value. A connection
        that the server has closed is opened once more."""
        data = body if body is None or isinstance(body, str) else json.dumps(body)
        for attempt in range(2):
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPSConnection(
                        self.url.hostname, self.url.port, context=self.context, timeout=REQUEST_MAX
                    )
                self.connection.request(method, path, data, {"Content-Type": content_type})
                answer = self.connection.getresponse()
                return answer.status, json.loads(answer.read() or b"null")
            except (http.client.HTTPException, ConnectionError) as error:
                self.connection = None
                if attempt == 1:
                    raise RunError(f"{method} {path}: {error}") from error
            except OSError as error:
                self.connection = None
                raise RunError(f"the API server does not answer: {error}") from error

    def get(self, path):
        """The object, or `None`."""
        status, found = self.request("GET", path)
        if status == 404:
            return None
        return checked("GET", path, status, found)

    def apply(self, path, body):
        query = f"?fieldManager={FIELD_MANAGER}&force=true"
        status, found = self.request("PATCH", path + query, body, "application/apply-patch+yaml")
        return checked("apply", path, status, found)

    def delete(self, path):
        status, found = self.request("DELETE", path)
        if status != 404:
            checked("DELETE", path, status, found)

    def memory(self, pods):
        """Resident memory in MiB of the largest process of each pod, by the name of the pod."""
        wanted, found = set(pods), {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                variables = (folder / "environ").read_bytes().split(b"\0")
                names = [v[9:].decode() for v in variables if v.startswith(b"HOSTNAME=")]
                if names and names[0] in wanted:
                    size = resident(folder)
                    found[names[0]] = max(size, found.get(names[0], 0.0))
            except (FileNotFoundError, PermissionError, ProcessLookupError):
                continue  # It has ended meanwhile, or is no pod.
        if wanted and not found:
            raise RunError("no process of a pod is found: run this as root on the machine of the nodes")
        return found


def resident(folder):
    for line in (folder / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def pem(holder, key):
    if f"{key}-data" in holder:
        return base64.b64decode(holder[f"{key}-data"]).decode()
    if key in holder:
        return Path(holder[key]).read_text()
    raise RunError(f"the kubeconfig has no {key}")


def checked(verb, path, status, found):
    if status >= 300:
        message = found.get("message") if isinstance(found, dict) else found
        raise RunError(f"{verb} {path}: {status}: {message}")
    return found


def run(command, limit=60, **options):
    """The standard output of a program."""
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        last = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise RunError(f"{' '.join(command[:4])} failed:\n{last}")
    return done.stdout


def wait(what, limit, check, pause=0.2):
    """The first true value of `check` within `limit` seconds."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(pause)
    raise RunError(f"{what}: not after {limit} s")
