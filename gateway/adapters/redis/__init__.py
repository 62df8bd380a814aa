"""Redis: admission. One link, the scripts in lua/, and what they keep there."""
