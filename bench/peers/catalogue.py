"""The peers there are drivers for."""

from bench.peers.envoy import Envoy
from bench.peers.litellm import LiteLLM
from bench.peers.peer import Peer
from bench.peers.portkey import Portkey

PEERS: dict[str, Peer] = {peer.name: peer for peer in (Envoy(), LiteLLM(), Portkey())}
