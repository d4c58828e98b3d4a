"""What the reference needs beyond autodoc: a Sphinx extension."""

from __future__ import annotations

import pkgutil
import re
import sys
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer

import kaleden

# Objects that other calls return: what their classes are called with is nobody's business.
HANDED_OUT = {
    "kaleden.LogStream",
    "kaleden.OutcomeStream",
    "kaleden.Scope",
    "kaleden.Streams",
    "kaleden.SyncLogStream",
    "kaleden.SyncOutcomeStream",
    "kaleden.SyncScope",
    "kaleden.SyncStreams",
    "kaleden.testing.Faults",
}
# Where a name is looked for first that stands in a docstring of another class or module.
ELSEWHERE = ("kaleden", "kaleden.AsyncSession", "kaleden.testing", "kaleden.local")
# Libraries whose names stand in signatures. Their inventories would take a network to build.
LIBRARIES = {"anyio", "httpx", "httpx2", "pytest", "rich"}
# Types of attributes, as they are written in their modules.
BARE = {
    "AbstractAsyncContextManager": "contextlib.AbstractAsyncContextManager",
    "datetime": "datetime.datetime",
}
TYPE_VARIABLES = {"R", "T", "Ts"}
ALIAS = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")


def read_private_modules(_app: Sphinx) -> None:
    """Let autodoc find the docstrings of attributes, which stand in the module that defines them.

    Public classes say that they are of the package they are exported from.
    """
    names = [module.name for module in pkgutil.walk_packages(kaleden.__path__, "kaleden.")]
    for package in ("kaleden", "kaleden.http", "kaleden.local", "kaleden.testing"):
        public = ModuleAnalyzer.for_module(package)
        public.analyze()
        for name in names:
            if name.rpartition(".")[2].startswith("__") or not belongs(name, package):
                continue
            private = ModuleAnalyzer.for_module(name)
            private.analyze()
            public.attr_docs = {**private.attr_docs, **public.attr_docs}
            public.tagorder = {**private.tagorder, **public.tagorder}


def belongs(module: str, package: str) -> bool:
    """Whether what a private module defines may be exported from a package."""
    if package in {"kaleden", "kaleden.http"}:
        return not module.startswith(("kaleden.local", "kaleden.testing"))
    return module.startswith(package)


def mend_signature(
    _app: Sphinx, what: str, name: str, _object: Any, _options: Any, *parts: str | None
) -> tuple[str | None, str | None]:
    """Show no signature of a class that nobody calls, and aliases by their names."""
    if what == "class" and name in HANDED_OUT:
        return "", ""
    signature, returns = (part and ALIAS.sub(r"\1", part) for part in parts)
    return signature, returns


def keep_colons(
    _app: Sphinx, what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Keep napoleon from taking the words before a colon for a type: types stand in signatures."""
    if what in {"attribute", "data", "property"} and lines:
        lines[0] = f": {lines[0]}"
    for number, line in enumerate(lines[:-1], start=1):
        if line == "Returns:":
            lines[number] = f"    : {lines[number].strip()}"


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
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
