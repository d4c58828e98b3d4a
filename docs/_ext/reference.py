"""What the reference needs beyond autodoc: a Sphinx extension."""

from __future__ import annotations

import pkgutil
import re
import sys
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer

import kaleden

PACKAGES = ("kaleden", "kaleden.http", "kaleden.local", "kaleden.testing")
# What calls return and users never make: how it is made is nobody's business.
HANDED_OUT = {
    *("Availability", "Choices", "ConnectionInfo", "CoreStats", "DiscoveryStep", "Event"),
    *("GpuStats", "Image", "InstanceStats", "LimiterStatistics", "LogLine", "LogReset"),
    *("LogStream", "OutcomeStream", "PlatformStats", "RamStats", "ResourceOptions"),
    *("RetryStatistics", "Scope", "ScopeStatistics", "SessionInfo", "SessionStatistics", "Streams"),
    *("SyncLogStream", "SyncOutcomeStream", "SyncScope", "SyncStreams", "TransportStatistics"),
}
# Where a name is looked for first that stands in a docstring of another class or module.
ELSEWHERE = ("kaleden", "kaleden.AsyncSession", "kaleden.testing", "kaleden.local")
# Libraries whose names stand in signatures. Their inventories would take a network to build.
LIBRARIES = {"anyio", "httpx", "httpx2", "parsl", "pytest", "rich"}
# Types of attributes, and exceptions of others, as they are written in their modules.
BARE = {
    "AbstractAsyncContextManager": "contextlib.AbstractAsyncContextManager",
    "ExecutionProviderException": "parsl.providers.errors.ExecutionProviderException",
    "SubmitException": "parsl.providers.errors.SubmitException",
    "datetime": "datetime.datetime",
}
TYPE_VARIABLES = {"R", "T", "Ts"}
# Defaults that cannot be read, or are the business of the code.
DEFAULT = re.compile(r"<function \w+>|NOTHING|mappingproxy\(\{\}\)")
ALIAS = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")


def read_private_modules(_app: Sphinx) -> None:
    """Let autodoc find the docstrings of attributes, which stand in the module that defines them.

    Public classes say that they are of the package they are exported from.
    """
    found = pkgutil.walk_packages(kaleden.__path__, "kaleden.")
    names = [module.name for module in found if not module.name.endswith("__main__")]
    for package in PACKAGES:
        public = ModuleAnalyzer.for_module(package)
        public.analyze()
        for name in names:
            private = ModuleAnalyzer.for_module(name)
            private.analyze()
            shown = partial(exports, import_module(package), import_module(name))
            docs, order = private.attr_docs, private.tagorder
            public.attr_docs |= {key: docs[key] for key in docs if shown(key[0])}
            public.tagorder |= {tag: order[tag] for tag in order if shown(tag.partition(".")[0])}


def exports(package: ModuleType, module: ModuleType, name: str) -> bool:
    """Tell whether what a module defines under a name is what a package shows under it."""
    return name in package.__all__ and getattr(package, name) is getattr(module, name, None)


def mend_signature(
    _app: Sphinx, what: str, name: str, _object: Any, _options: Any, *parts: str | None
) -> tuple[str | None, str | None]:
    """Show no signature of a class that nobody calls, and aliases by their names."""
    package, _, class_name = name.rpartition(".")
    if what == "class" and package in {"kaleden", "kaleden._wire"} and class_name in HANDED_OUT:
        return "", ""
    signature, returns = (part and ALIAS.sub(r"\1", part) for part in parts)
    return signature and DEFAULT.sub("...", signature), returns


def keep_colons(
    _app: Sphinx, what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Keep napoleon from taking the words before a colon for a type: types stand in signatures."""
    if what in {"attribute", "data", "property"} and lines:
        lines[0] = f": {lines[0]}"
    for number, line in enumerate(lines[:-1], start=1):
        if line == "Returns:":
            lines[number] = f"    : {lines[number].strip()}"


def put_types_inline(
    _app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Show the type of an attribute beside its name: napoleon makes it a paragraph."""
    attribute = None
    for number, line in enumerate(tuple(lines)):
        if line.startswith(".. attribute::"):
            attribute = number
        elif attribute is not None and line.startswith("   :type:"):
            lines[number] = ""
            lines[attribute] += f"\n{line}"
            attribute = None
    lines[:] = "\n".join(lines).split("\n")


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Say where a name leads to that is not where Sphinx looks for it."""
    if node.get("refdomain") != "py":
        return None
    target = BARE.get(node["reftarget"], node["reftarget"])
    module, _, name = target.rpartition(".")
    if name in TYPE_VARIABLES or target.partition(".")[0] in LIBRARIES:
        return content
    if module.partition(".")[0] in sys.stdlib_module_names:
        url = f"https://docs.python.org/3/library/{module}.html#{target}"
        return nodes.reference("", "", content, internal=False, refuri=url)
    if module.startswith("kaleden._"):
        target, module = name, ""
    domain = env.domains.python_domain
    found = ends_with(domain, target)
    if not found and module:
        # An attribute that is told of among the arguments of its class.
        found = ends_with(domain, module)
    if not found:
        return None
    document, wanted = node.get("refdoc"), min(found, key=distance)
    return domain.resolve_xref(env, document, app.builder, "obj", wanted, node, content)


def ends_with(domain: PythonDomain, target: str) -> list[str]:
    """List the names that are known and end so."""
    return sorted(known for known in domain.objects if f".{known}".endswith(f".{target}"))


def distance(name: str) -> int:
    """Tell how far from a reader's mind a name is that somebody calls by its end only."""
    for rank, place in enumerate(ELSEWHERE):
        if name.rpartition(".")[0] == place:
            return rank
    return len(ELSEWHERE)


def setup(app: Sphinx) -> dict[str, Any]:
    """Add it all."""
    app.connect("builder-inited", read_private_modules)
    app.connect("autodoc-process-signature", mend_signature)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", put_types_inline, priority=600)  # after it
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
