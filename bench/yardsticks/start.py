"""Starts the upstream and each yardstick that is installed."""

import shutil
import sys
import time
from pathlib import Path

from bench.processes import POLL_INTERVAL_S, Children, free_port, tree
from bench.target import Kind, Target

_NGINX_CONF = """\
daemon off; worker_processes 1; worker_rlimit_nofile 65536; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{ worker_connections 32768; multi_accept on; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; proxy_buffering off; proxy_read_timeout 600s;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi; client_max_body_size 32m; tcp_nodelay on;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=16384;
    location / {{ proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


def start_upstream(children: Children) -> Target:
    port = free_port()
    child = children.start_server("upstream", [sys.executable, "-m", "bench.upstream", str(port)], port)
    return Target(name="direct", kind=Kind.DIRECT, port=port, pids=(child.pid,))


def start_nginx(children: Children, upstream_port: int, directory: Path) -> Target | None:
    """None when nginx is not installed."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        return None
    home = (directory / "nginx").absolute()
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    conf = home / "nginx.conf"
    conf.write_text(_NGINX_CONF.format(directory=home, upstream=upstream_port, port=port))
    child = children.start_server("nginx", [nginx, "-c", conf, "-p", home, "-e", home / "error.log"], port)
    while len(tree(child.pid)) < 2 and child.poll() is None:  # it listens before its worker is there
        time.sleep(POLL_INTERVAL_S)
    return Target(name="nginx", kind=Kind.YARDSTICK, port=port, pids=tree(child.pid))


def start_python_relay(children: Children, name: str, upstream_port: int) -> Target:
    """`name` is a module of `bench.yardsticks`, without its `_relay`."""
    port = free_port()
    command = [sys.executable, "-m", f"bench.yardsticks.{name}_relay", str(port), str(upstream_port)]
    child = children.start_server(f"{name}-relay", command, port)
    return Target(name=name, kind=Kind.YARDSTICK, port=port, pids=(child.pid,))
