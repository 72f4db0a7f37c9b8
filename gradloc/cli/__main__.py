"""``python -m gradloc.cli``: the command line."""

from gradloc.cli.main import main

main()
