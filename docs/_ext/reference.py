"""A Sphinx extension that adapts autodoc and cross-references to kaleden's reference."""

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
# Classes of which users receive instances and never create any: their signatures are omitted.
UNSIGNED = {
    *("Availability", "Choices", "ConnectionInfo", "CoreStats", "DiscoveryStep", "Event"),
    *("GpuStats", "Image", "InstanceStats", "LimiterStatistics", "LogLine", "LogReset"),
    *("LogStream", "OutcomeStream", "PlatformStats", "RamStats", "ResourceOptions"),
    *("RetryStatistics", "Scope", "ScopeStatistics", "SessionInfo", "SessionStatistics", "Streams"),
    *("SyncLogStream", "SyncOutcomeStream", "SyncScope", "SyncStreams", "TransportStatistics"),
}
# Where short names in docstrings are searched for, in the order of preference.
PREFERRED_PARENTS = ("kaleden", "kaleden.AsyncSession", "kaleden.testing", "kaleden.local")
# Libraries with names in signatures. Their inventories would require a network access.
LIBRARIES = {"anyio", "httpx", "httpx2", "parsl", "pytest", "rich"}
# Names of types and exceptions of other libraries as kaleden's modules write them.
QUALIFIED = {
    "AbstractAsyncContextManager": "contextlib.AbstractAsyncContextManager",
    "ExecutionProviderException": "parsl.providers.errors.ExecutionProviderException",
    "SubmitException": "parsl.providers.errors.SubmitException",
    "datetime": "datetime.datetime",
}
TYPE_VARIABLES = {"R", "T", "Ts"}
# Default values that are unreadable or internal.
HIDDEN_DEFAULT = re.compile(r"<function \w+>|NOTHING|mappingproxy\(\{\}\)")
ALIAS = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")


def read_private_modules(_app: Sphinx) -> None:
    """Let autodoc find the docstrings of attributes in the modules that define them.

    The `__module__` of a public class is the package that exports it, so autodoc searches only the
    package's source.
    """
    found = pkgutil.walk_packages(kaleden.__path__, "kaleden.")
    names = [module.name for module in found if not module.name.endswith("__main__")]
    for package in PACKAGES:
        public = ModuleAnalyzer.for_module(package)
        public.analyze()
        for name in names:
            private = ModuleAnalyzer.for_module(name)
            private.analyze()
            exported = partial(exports, import_module(package), import_module(name))
            docs, order = private.attr_docs, private.tagorder
            public.attr_docs |= {key: docs[key] for key in docs if exported(key[0])}
            public.tagorder |= {tag: order[tag] for tag in order if exported(tag.partition(".")[0])}


def exports(package: ModuleType, module: ModuleType, name: str) -> bool:
    """Return whether a package exports the object that a module defines under a name."""
    return name in package.__all__ and getattr(package, name) is getattr(module, name, None)


def adapt_signature(
    _app: Sphinx, what: str, name: str, _object: Any, _options: Any, *parts: str | None
) -> tuple[str | None, str | None]:
    """Omit signatures of classes that users do not create, and show type aliases by name."""
    package, _, class_name = name.rpartition(".")
    if what == "class" and package in {"kaleden", "kaleden._wire"} and class_name in UNSIGNED:
        return "", ""
    signature, returns = (part and ALIAS.sub(r"\1", part) for part in parts)
    return signature and HIDDEN_DEFAULT.sub("...", signature), returns


def keep_colons(
    _app: Sphinx, what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Stop napoleon from parsing text before a colon as a type: signatures have the types."""
    if what in {"attribute", "data", "property"} and lines:
        lines[0] = f": {lines[0]}"
    for number, line in enumerate(lines[:-1], start=1):
        if line == "Returns:":
            lines[number] = f"    : {lines[number].strip()}"


def put_types_inline(
    _app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Show the type of an attribute beside its name; napoleon puts it in a paragraph."""
    attribute = None
    for number, line in enumerate(tuple(lines)):
        if line.startswith(".. attribute::"):
            attribute = number
        elif attribute is not None and line.startswith("   :type:"):
            lines[number] = ""
            lines[attribute] += f"\n{line}"
            attribute = None
    lines[:] = "\n".join(lines).split("\n")


def resolve_reference(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Resolve a cross-reference that Sphinx did not find."""
    if node.get("refdomain") != "py":
        return None
    target = QUALIFIED.get(node["reftarget"], node["reftarget"])
    module, _, name = target.rpartition(".")
    if name in TYPE_VARIABLES or target.partition(".")[0] in LIBRARIES:
        return content
    if module.partition(".")[0] in sys.stdlib_module_names:
        url = f"https://docs.python.org/3/library/{module}.html#{target}"
        return nodes.reference("", "", content, internal=False, refuri=url)
    if module.startswith("kaleden._"):
        target, module = name, ""
    domain = env.domains.python_domain
    found = find_names(domain, target)
    if not found and module:
        # An attribute that is documented in the arguments of its class: link to the class.
        found = find_names(domain, module)
    if not found:
        return None
    document, wanted = node.get("refdoc"), min(found, key=get_rank)
    return domain.resolve_xref(env, document, app.builder, "obj", wanted, node, content)


def find_names(domain: PythonDomain, target: str) -> list[str]:
    """List the documented names that end in the parts of *target*."""
    return sorted(known for known in domain.objects if f".{known}".endswith(f".{target}"))


def get_rank(name: str) -> int:
    """Return the rank of a name among those with the same last part; the lowest is preferred."""
    for rank, parent in enumerate(PREFERRED_PARENTS):
        if name.rpartition(".")[0] == parent:
            return rank
    return len(PREFERRED_PARENTS)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the functions of this extension to Sphinx's events."""
    app.connect("builder-inited", read_private_modules)
    app.connect("autodoc-process-signature", adapt_signature)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", put_types_inline, priority=600)  # after it
    app.connect("missing-reference", resolve_reference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
