"""Extension of griffe: the roles of Sphinx in docstrings become links of the site.

A role whose target has no entry in the site (private, without a docstring, of another project) becomes code. One whose
target does not exist is a warning, so ``make docs`` fails."""

from __future__ import annotations

import re
from collections.abc import Iterator

import griffe

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`([^`]+)`")
_LOG = griffe.get_logger("docs_roles")


class Roles(griffe.Extension):
    """Rewrites the docstrings of a package once it is loaded."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **_: object) -> None:
        """All of its docstrings; packages that they point to are loaded first."""
        for obj in _objects(pkg):
            if obj.docstring is not None:
                obj.docstring.value = ROLE.sub(lambda found, obj=obj: _link(found[1], obj, loader), obj.docstring.value)


def _objects(obj: griffe.Object) -> Iterator[griffe.Object]:
    yield obj
    for member in obj.members.values():
        if not member.is_alias:
            yield from _objects(member)


def _link(name: str, where: griffe.Object, loader: griffe.GriffeLoader) -> str:
    text = f"`{name.removeprefix('.')}`"
    try:
        target = _target(name, where, loader)
    except griffe.AliasResolutionError:
        return text  # another project's
    if target is None:
        _LOG.warning("%s: there is no %s", where.path, name)
        return text
    return f"[{text}][{target.path}]" if _has_entry(target) else text


def _target(name: str, where: griffe.Object, loader: griffe.GriffeLoader) -> griffe.Object | None:
    """What a name stands for in the docstring of an object: absolute, relative to its package, or in its scope."""
    module = where if where.is_module else where.module
    if name.startswith("."):
        package = module if module.is_init_module else module.parent
        return _member(package, name[1:])
    root = name.partition(".")[0]
    if root.startswith("stdnet_"):
        if root not in loader.modules_collection:
            loader.load(root)
        return _member(loader.modules_collection[root], name.partition(".")[2])
    scope: griffe.Object | None = where
    while scope is not None:
        found = _member(scope, name)
        if found is not None or scope.is_module:
            return found
        scope = scope.parent
    return None


def _member(obj: griffe.Object, name: str) -> griffe.Object | None:
    """The object of a dotted name in another one, through imports and base classes."""
    for part in filter(None, name.split(".")):
        members = obj.all_members if obj.is_class else obj.members
        if part not in members:
            return None
        found = members[part]
        obj = found.final_target if found.is_alias else found
    return obj


def _has_entry(obj: griffe.Object) -> bool:
    """Whether the site shows it: it and all around it are public and described."""
    while True:
        if obj.name.startswith("_") or not obj.has_docstring:
            return False
        if obj.is_module:
            return True
        obj = obj.parent
