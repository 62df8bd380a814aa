"""The one error of the sandbox: a start that cannot succeed, told in one line with its remedy."""


class SandboxError(Exception):
    """The embedded stores could not be started. The message is one line for the terminal: what is wrong, what to do."""
