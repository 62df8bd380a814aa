"""What a call asks for, the most it can cost, and what it used."""
