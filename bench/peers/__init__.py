"""The gateways that users would otherwise pick, each in an environment of its own, measured when installed."""
