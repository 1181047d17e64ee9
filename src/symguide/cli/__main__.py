"""python -m symguide.cli"""

from symguide.cli import main

main(prog_name="symguide")
