"""Parts of one kind by name: methods, measures, graders, engines. Nothing is imported before it is used.

Wherever a name is taken, ``package.module:function`` (or a class) of the user's own is taken too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from zpd_ray.errors import ZpdError
from zpd_ray.user_code import load_function


class Registry(Mapping[str, str]):
    """Import paths (``package.module:attribute``) by name."""

    def __init__(
        self, kind: str, expected: str, paths: dict[str, str], attributes: tuple[str, ...] = ()
    ) -> None:
        """kind: as a message calls one of them; expected: what an import path of the user's must lead to;
        attributes: that a class must have."""
        self.kind, self.expected, self._paths, self._attributes = kind, expected, paths, attributes

    def __getitem__(self, name: str) -> str:
        return self._paths[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def check(self, name: str) -> None:
        """Raises ZpdError, with the nearest name, for what is neither known nor an import path."""
        if name in self._paths or ":" in name:
            return
        near = difflib.get_close_matches(name, self._paths, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else "give one of these"
        raise ZpdError(
            f"unknown {self.kind} {name!r}; expected one of {', '.join(self._paths)}, or {self.expected} of "
            f"your own as 'package.module:name'; {hint}"
        )

    def load(self, name: str) -> Any:
        """The function or class of a name. Raises ZpdError when there is none, or it cannot be imported."""
        self.check(name)
        found = load_function(f"the {self.kind}", self._paths.get(name, name), self.expected)
        lacking = [attribute for attribute in self._attributes if not hasattr(found, attribute)]
        if isinstance(found, type) and lacking:
            raise ZpdError(
                f"the {self.kind} {name!r} is a class without {', '.join(lacking)}; expected {self.expected}"
            )
        return found


def label(name: str) -> str:
    """A name as part of a file's path: ``package.module:function`` without its colon."""
    return name.replace(":", ".")
