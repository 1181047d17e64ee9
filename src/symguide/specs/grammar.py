"""The grammar of objectives on the command line. Nothing is evaluated: text in, terms out.

spec   = term { "+" term }
term   = [ number "*" ] name [ ":" part { "@" part } ]
part   = plain text without + @ " at its ends and inside, or "quoted text" with "" for a quote

classifier:3                                   -log p(class 3) by the world's scorer
classifier:0,1,2                               sample i steers toward class 0, 1, 2, 0, 1, 2, ...
classifier:shape=star                          where the classifier has several attributes
text:"a red star" + 0.1*aesthetic              a weighted sum, of one that takes an argument and one that takes none
2*region:ref.png@left                          one with two arguments
my_module:Sharpness                            a callable, class or factory of yours
"""

import re
from typing import NamedTuple

from symguide.errors import ConfigError

_FACTOR = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\*")
_NAME = re.compile(r"\s*([A-Za-z_][\w.]*)\s*")
_QUOTED = re.compile(r'\s*"((?:[^"]|"")*)"\s*')
_PLAIN = re.compile(r'[^"+@]+')


class Term(NamedTuple):
    """factor * name:part@part..., or without parts factor * name."""

    factor: float
    name: str
    parts: tuple[str, ...]


def parse(text: str) -> list[Term]:
    """The terms of a spec.

    Raises:
        ConfigError: with the place where the text stops making sense.

    >>> parse("0.5*classifier:3 + region:ref.png@left")
    [Term(factor=0.5, name='classifier', parts=('3',)), Term(factor=1.0, name='region', parts=('ref.png', 'left'))]
    """
    terms, at = [], 0
    while True:
        term, at = _term(text, at)
        terms.append(term)
        if at == len(text):
            return terms
        at += 1  # the +


def _term(text: str, at: int) -> tuple[Term, int]:
    factor = 1.0
    if found := _FACTOR.match(text, at):
        factor, at = float(found[1]), found.end()
        if abs(factor) == float("inf"):
            raise _stop(text, found.start(), "the factor is too large")
    named = _NAME.match(text, at)
    if not named:
        raise _stop(text, at, "expected name:argument, such as classifier:3 or my_module:Rule")
    at = named.end()
    parts: list[str] = []
    while text.startswith("@" if parts else ":", at):
        part, at = _part(text, at + 1)
        parts.append(part)
    if not parts and at < len(text) and text[at] != "+":
        raise _stop(text, at, "expected : and an argument, or + and another objective")
    return Term(factor, named[1], tuple(parts)), at


def _part(text: str, at: int) -> tuple[str, int]:
    if found := _QUOTED.match(text, at):
        part, end = found[1].replace('""', '"'), found.end()
    elif found := _PLAIN.match(text, at):
        part, end = found[0].strip(), found.end()
    else:
        part, end = "", at
    if not part:
        raise _stop(text, at, "expected an argument")
    if end < len(text) and text[end] not in "+@":
        raise _stop(text, end, 'expected + or @ here (put text that holds + @ or " in "quotes")')
    return part, end


def _stop(text: str, at: int, why: str) -> ConfigError:
    rest = text[at:].strip()
    where = f"at {rest!r}" if rest else "at its end"
    return ConfigError(f"objective {text!r}: {why}, {where}")


def show(terms: list[Term]) -> str:
    """The text of terms, which `parse` reads back to the same terms.

    >>> show([Term(2.0, "region", ("a+b.png", "left")), Term(1.0, "classifier", ("3",))])
    '2.0*region:"a+b.png"@left + classifier:3'
    """
    return " + ".join(map(_show, terms))


def _show(term: Term) -> str:
    arguments = ":" + "@".join(map(_quote, term.parts)) if term.parts else ""
    return ("" if term.factor == 1 else f"{term.factor!r}*") + term.name + arguments


def _quote(part: str) -> str:
    return part if _PLAIN.fullmatch(part) and part == part.strip() else '"' + part.replace('"', '""') + '"'
