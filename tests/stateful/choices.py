"""Domains of an action's arguments, drawn by Hypothesis or by a seeded walk alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from hypothesis import strategies as st


class Domain:
    """The values that an argument takes."""

    def strategy(self) -> st.SearchStrategy[Any]:
        raise NotImplementedError

    def pick(self, random: Random) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class OneOf(Domain):
    """One of these; what stands there twice comes twice as often."""

    values: Sequence[Any]

    def strategy(self) -> st.SearchStrategy[Any]:
        return st.sampled_from(self.values)

    def pick(self, random: Random) -> Any:
        return self.values[int(random.random() * len(self.values))]


@dataclass(frozen=True)
class Between(Domain):
    """An integer, both ends included."""

    low: int
    high: int

    def strategy(self) -> st.SearchStrategy[Any]:
        return st.integers(self.low, self.high)

    def pick(self, random: Random) -> Any:
        return random.randint(self.low, self.high)


@dataclass(frozen=True)
class AnyOf(Domain):
    """A value of one of these domains."""

    domains: Sequence[Domain]

    def strategy(self) -> st.SearchStrategy[Any]:
        return st.one_of([domain.strategy() for domain in self.domains])

    def pick(self, random: Random) -> Any:
        return self.domains[int(random.random() * len(self.domains))].pick(random)


@dataclass(frozen=True)
class Each(Domain):
    """A tuple with a value of each domain."""

    domains: Sequence[Domain]

    def strategy(self) -> st.SearchStrategy[Any]:
        return st.tuples(*[domain.strategy() for domain in self.domains])

    def pick(self, random: Random) -> Any:
        return tuple(domain.pick(random) for domain in self.domains)


@dataclass(frozen=True)
class Several(Domain):
    """A list."""

    domain: Domain
    least: int
    most: int

    def strategy(self) -> st.SearchStrategy[Any]:
        return st.lists(self.domain.strategy(), min_size=self.least, max_size=self.most)

    def pick(self, random: Random) -> Any:
        count = random.randint(self.least, self.most)
        return [self.domain.pick(random) for _ in range(count)]


YES_OR_NO = OneOf((False, True))
SELDOM = OneOf((False,) * 7 + (True,))


@dataclass(frozen=True)
class Action:
    """Something that can happen: a method, how often a walk does it, and its arguments' domains."""

    method: str
    weight: int
    domains: dict[str, Domain]

    def pick(self, random: Random) -> dict[str, Any]:
        return {name: domain.pick(random) for name, domain in self.domains.items()}


def action(weight: int = 4, **domains: Domain) -> Callable[[Any], Any]:
    """Mark a method as an action."""

    def mark(method: Any) -> Any:
        method.action = Action(method.__name__, weight, domains)
        return method

    return mark


def actions_of(cls: type) -> list[Action]:
    """A class's actions, in the order of their definition."""
    return [value.action for value in vars(cls).values() if hasattr(value, "action")]
