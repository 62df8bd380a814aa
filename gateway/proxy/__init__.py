"""The data plane: edge, exchange (the straight line of one call), relay."""
