"""The pure core: no await, no clock, no environment, no randomness; time and ids are arguments."""
