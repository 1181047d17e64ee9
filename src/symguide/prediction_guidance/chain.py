"""Several rules at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from symguide.branch import Asked, Branch, Point, Rule
from symguide.denoiser import Denoiser, Prediction
from symguide.errors import ConfigError


def chain(*rules: Rule) -> Rule:
    """Several rules at once: y = r_1 + (r_2 - c) + (r_3 - c) + ..., r_i what each makes alone, c the model's own.

        prediction=chain(CFG(5.0), PAG("middle.*.attention.softmax", scale=2.0))     # u + 5 (c - u) + 2 (c - k)

    Their branches are made in one batched call, those that several ask for once: the model's own, and the one without
    the condition. Rules that are off add nothing.

    Raises:
        ConfigError: for what is no rule, and for CFG++, which moves the point that its step is made from.

    Cost: 1 call per sample for each different branch.
    """
    if not rules or not all(isinstance(rule, Rule) for rule in rules):
        raise ConfigError(f"chain takes rules, such as CFG(3.0), not {rules!r}")
    if len(rules) > 1 and any(rule.moves for rule in rules):
        raise ConfigError("CFG++ makes its step from another point than x_t and cannot be chained: use CFG or APG")
    return rules[0] if len(rules) == 1 else Chain(rules)


@dataclass(frozen=True)
class Chain(Rule):
    """What `chain` gives."""

    rules: tuple[Rule, ...]

    @property
    def by_step(self) -> bool:
        return any(rule.by_step for rule in self.rules)

    @property
    def models(self) -> tuple[Denoiser, ...]:
        return tuple(model for rule in self.rules for model in rule.models)

    def calls(self, at: Point) -> Asked:
        asked = [rule.calls(at.of(rule)) for rule in self.rules]
        wanted = {i: next(each) for i, each in enumerate(asked)}
        own: dict[str, Prediction] = {}
        made: dict[int, Prediction] = {}
        while wanted:
            every = {_name(i, name, b): b for i, branches in wanted.items() for name, b in branches.items()}
            once = {name: b for name, b in {**every, "c": Branch()}.items() if name not in own}
            said = own | ((yield once) if once else {})
            own, following = {"c": said["c"]}, {}
            for i, branches in wanted.items():
                answer = {name: said[_name(i, name, b)] for name, b in branches.items()}
                try:
                    following[i] = asked[i].send(answer)
                except StopIteration as done:
                    made[i] = done.value
            wanted = following
        return _sum(own["c"], [made[i] for i in sorted(made)])


def _name(i: int, name: str, branch: Branch) -> str:
    """Of a branch that rule i asks for: the model's own is the same for all."""
    return "c" if branch.plain else f"{i}.{name}"


def _sum(c: Prediction, made: Sequence[Prediction]) -> Prediction:
    moved = [y for y in made if y is not c]
    if len(moved) < 2:
        return moved[0] if moved else c
    if any(y.space != c.space for y in moved):
        c, moved = c.with_x0(c.x0), [y.with_x0(y.x0) for y in moved]
    value = moved[0].value
    for y in moved[1:]:
        value = value + (y.value - c.value)
    guided = c.with_value(value)
    return guided.with_value(value, shift=(guided.eps - c.eps).detach())
