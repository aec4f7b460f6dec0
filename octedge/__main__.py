"""`python -m octedge`: the command line, for launchers that start modules, as torchrun does."""

from octedge.cli import main

if __name__ == "__main__":
    main()
