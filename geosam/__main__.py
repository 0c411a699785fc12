"""``python -m geosam`` is the command line, which ``accelerate launch -m geosam`` needs."""

from geosam.cli import main

if __name__ == "__main__":
    main()
