"""The policy: stable rules that drive teacher, reasoning, refusal, judge and server."""

from __future__ import annotations

import hashlib
import re
from functools import cached_property, lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from forethought.errors import ConfigError
from forethought.yamlfile import shipped_or_own, shipped_texts

SHIPPED = "policies"
"""Folder of the package that holds the policies that ship."""


def label_key(label: str) -> str:
    """A category name without case, spacing and punctuation, so that spellings meet."""
    return re.sub(r"[^a-z0-9]+", "", label.lower())


class Rule(BaseModel):
    """One thing the model must not do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[A-Z][A-Z0-9]{0,7}$")
    """Stable identifier, such as `R8`. Never reused for another meaning."""
    title: str = Field(min_length=3)
    """A few words; refusals quote it."""
    description: str = Field(min_length=10)
    """What the rule forbids, in one or two sentences."""
    reason: str
    """Why a request that breaks it is declined, as a clause: `it would ...`."""
    alternative: str
    """What can be offered instead, as a verb phrase: `explain how to ...`."""
    support: bool = False
    """True where the answer is support and help to seek, not a bare refusal."""
    categories: tuple[str, ...] = ()
    """Names that other taxonomies give to this rule."""
    examples: tuple[str, ...] = ()
    """Requests that break the rule, for the classifier; none are required."""


class Policy(BaseModel):
    """A versioned list of rules. Two policies are the same when their hash is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    tone: str
    rules: tuple[Rule, ...] = Field(min_length=1)

    @field_validator("rules")
    @classmethod
    def _ids_are_unique(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        ids = [rule.id for rule in rules]
        twice = sorted({rule_id for rule_id in ids if ids.count(rule_id) > 1})
        if twice:
            raise ValueError(f"rule id {', '.join(twice)} stands more than once")
        return rules

    @property
    def hash(self) -> str:
        """Content hash, 16 hexadecimal digits; part of every manifest and cache key."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @property
    def rule_ids(self) -> tuple[str, ...]:
        return tuple(rule.id for rule in self.rules)

    def rule(self, rule_id: str) -> Rule:
        """The rule with this id. Raises ConfigError when the policy has none."""
        for rule in self.rules:
            if rule.id == rule_id:
                return rule
        raise ConfigError(
            f"rule id '{rule_id}'",
            f"policy '{self.name}' has no such rule",
            f"Use one of {', '.join(self.rule_ids)}, or add the rule to the policy file",
        )

    def filled(self, template: str, **more: str) -> str:
        """A template with its `{rules}`, its `{example}`, which is the first rule, and that one's `{example_title}` in
        it, and with `more`. One pass: braces of a rule are text."""
        rules = "\n".join(f"{rule.id} {rule.title}: {' '.join(rule.description.split())}" for rule in self.rules)
        said = {"rules": rules, "example": self.rules[0].id, "example_title": self.rules[0].title, **more}
        return re.sub(r"\{(\w+)\}", lambda match: said.get(match[1], match[0]), template)

    def rules_for_category(self, label: str) -> tuple[str, ...]:
        """Ids of the rules that a category of another taxonomy stands for; empty if none."""
        return self._by_category.get(label_key(label), ())

    @cached_property
    def _by_category(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for rule in self.rules:
            for key in {label_key(name) for name in (rule.id, rule.title, *rule.categories)}:
                found.setdefault(key, []).append(rule.id)
        return {key: tuple(ids) for key, ids in found.items()}


def load_policy(path: Path | str | None = None) -> Policy:
    """Reads a policy file, or a policy that ships, by its name; None is the default one.

    Raises ConfigError when the file is missing, is not YAML or breaks the schema.
    """
    return default_policy() if path is None else _read(path)


def shipped_policies() -> tuple[str, ...]:
    """Names of the policies that ship, those of their files."""
    return tuple(shipped_texts(SHIPPED))


@lru_cache(maxsize=1)
def default_policy() -> Policy:
    """The policy that holds where none is named."""
    return _read("default")


def _read(name: Path | str) -> Policy:
    return shipped_or_own(
        name, SHIPPED, "policy file", Policy, "the keys name, version, tone and rules", "docs/policy.md"
    )
