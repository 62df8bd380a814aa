"""`python -m gateway`: the same as `tollgate`."""

from gateway.cli.main import main

main()
