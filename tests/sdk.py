"""What tests' clients of the official SDK are made with."""

from openai import DefaultAsyncHttpxClient


def without_tls() -> DefaultAsyncHttpxClient:
    """The SDK's own HTTP client, without the certificate authorities: to read them takes 25 ms of CPU a client."""
    return DefaultAsyncHttpxClient(verify=False)
