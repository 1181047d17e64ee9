"""`symguide demo`: what guidance does, shown on real data in about a minute."""

from symguide.cli.demo.command import demo

__all__ = ["demo"]
