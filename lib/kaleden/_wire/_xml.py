"""The two VOSI documents of the IVOA, availability and capabilities, as text to models."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from kaleden._wire._models import Availability, Capability, Interface


def _read_availability(document: str) -> Availability:
    """Read an availability document.

    Raises:
        ValueError: it is none.
    """
    root = _parse(document, "availability")
    said = next((_content(each) for each in _named(root, "available")), "")
    if said not in {"true", "false"}:
        raise ValueError("it does not say whether the service is available")
    notes = tuple(_content(each) for each in _named(root, "note"))
    return Availability(said == "true", notes)


def _read_capabilities(document: str) -> tuple[Capability, ...]:
    """Read a capabilities document.

    Raises:
        ValueError: it is none.
    """
    root = _parse(document, "capabilities")
    return tuple(
        Capability(each.get("standardID", ""), tuple(_interfaces(each)))
        for each in _named(root, "capability")
    )


def _interfaces(capability: ET.Element) -> Iterator[Interface]:
    for interface in _named(capability, "interface"):
        methods = _named(interface, "securityMethod")
        yield Interface(
            next((_content(url) for url in _named(interface, "accessURL")), ""),
            tuple(each.get("standardID", "") for each in methods if each.get("standardID")),
            interface.get("role"),
            interface.get("version"),
        )


def _parse(document: str, root_name: str) -> ET.Element:
    # Entities are what makes XML of strangers dangerous, and only a doctype can declare them.
    if "<!DOCTYPE" in document or "<!ENTITY" in document:
        raise ValueError("it has a DOCTYPE, which is refused")
    try:
        root = ET.fromstring(document)  # noqa: S314 # no doctype, no entities
    except ET.ParseError as error:
        raise ValueError(f"no XML: {error}") from None
    if _local(root) != root_name:
        raise ValueError(f"its root is <{_local(root)}>")
    return root


def _named(element: ET.Element, name: str) -> Iterator[ET.Element]:
    """Give the children of that name, in whatever namespace: servers differ in its version."""
    return (child for child in element if _local(child) == name)


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _content(element: ET.Element) -> str:
    return (element.text or "").strip()
