"""``python -m planner``: the command line, as launchers of ranks start it."""

from planner.cli.main import main

if __name__ == "__main__":
    main()
