"""`python -m kotrain` is the command `kotrain`."""

from kotrain.cli import main

main()
