"""What makes a laptop enough: embedded Postgres and Redis, a simulated OpenAI."""
