"""`python -m gateway`: the same as `tollgate`."""

from gateway.cli import main

main()
