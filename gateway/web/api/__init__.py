"""/api and /billing: what customers read and change of their own."""
