"""What is known of OpenAI: its vocabularies, its prices, and its own reports of usage and costs."""
