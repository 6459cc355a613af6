"""`python -m steerlens.cli`, where the command itself is not on the path."""

from steerlens.cli import main

if __name__ == "__main__":
    main()
