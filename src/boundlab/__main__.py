"""python -m boundlab: the same as the command boundlab."""

from boundlab.cli import main

main()
