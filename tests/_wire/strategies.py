"""Hypothesis strategies: valid specs, models, and damaged payloads."""

from __future__ import annotations

import string
from datetime import UTC, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from kaleden import _wire
from kaleden._wire import SessionKind, SessionSpec, SessionStatus

LABEL = string.ascii_lowercase + string.digits
PRINTABLE = "".join(c for c in map(chr, range(33, 127)) if c not in '$"\\')

words = st.text(PRINTABLE, min_size=1, max_size=20)
labels = st.text(LABEL, min_size=1, max_size=12)
names = st.lists(labels, min_size=1, max_size=4).map("-".join)
ids = st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=63).filter(
    lambda text: text[0].isalnum() and text[-1].isalnum()
)
images = st.builds(
    "{}{}/{}{}".format,
    st.sampled_from(["", "images.canfar.net/", "localhost:5000/"]),
    labels,
    labels,
    st.sampled_from(["", ":1.1.2", ":latest", f"@sha256:{'0f' * 32}"]),
)
amounts = st.integers(1, 1000) | st.none()
variables = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
settings_of_variables = st.text(PRINTABLE.replace("=", "") + " ", min_size=1, max_size=20)

headless_specs = st.builds(
    SessionSpec,
    name=names,
    image=images,
    cores=amounts | st.floats(1, 256),
    ram=amounts,
    gpus=amounts,
    cmd=words | st.none(),
    args=st.none() | st.lists(words, max_size=4),
    env=st.dictionaries(variables, settings_of_variables, max_size=4),
    replicas=st.integers(1, 20),
)
other_specs = st.builds(
    SessionSpec,
    name=names,
    image=images,
    kind=st.sampled_from([SessionKind.CARTA, SessionKind.CONTRIBUTED, SessionKind.NOTEBOOK]),
    cores=amounts,
    ram=amounts,
)
specs = headless_specs | other_specs

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
zones = st.sampled_from(
    [UTC, timezone(timedelta(hours=-8)), timezone(timedelta(hours=5, minutes=30))]
)
times = st.datetimes(timezones=zones)
kinds = st.sampled_from(SessionKind) | st.text(min_size=1, max_size=8).map(SessionKind)
statuses = st.sampled_from(SessionStatus) | st.text(min_size=1, max_size=8).map(SessionStatus)
optional_text = st.none() | st.text(max_size=8)
optional_int = st.none() | st.integers()
optional_float = st.none() | st.floats(allow_nan=False)
raws = st.dictionaries(st.text(max_size=6), json_values, max_size=3)

sessions = st.builds(
    _wire.SessionInfo,
    id=st.text(max_size=8),
    name=st.text(max_size=8),
    kind=kinds,
    status=statuses,
    user=st.text(max_size=8),
    image=st.text(max_size=8),
    start_time=st.none() | times,
    expiry_time=st.none() | times,
    connect_url=optional_text,
    requested_ram=optional_int,
    ram_in_use=optional_int,
    requested_cores=optional_float,
    cores_in_use=optional_float,
    requested_gpus=optional_int,
    fixed_resources=st.none() | st.booleans(),
    uid=optional_int,
    gid=optional_int,
    groups=st.lists(st.integers(), max_size=3).map(tuple),
    app_id=optional_text,
    raw=raws,
)
cores = st.builds(_wire.CoreStats, optional_float, optional_float, optional_float, optional_int)
ram = st.builds(_wire.RamStats, optional_int, optional_int, optional_int, optional_float)
gpus = st.builds(_wire.GpuStats, optional_int, optional_int, optional_int)
instances = st.builds(_wire.InstanceStats, optional_int, optional_int, optional_int, optional_int)
choices = st.builds(
    _wire.Choices,
    optional_int,
    optional_int,
    optional_int,
    optional_int,
    st.lists(st.integers(), max_size=3).map(tuple),
)
models: st.SearchStrategy[Any] = st.one_of(
    sessions,
    st.builds(
        _wire.Listing,
        st.lists(sessions, max_size=2).map(tuple),
        st.lists(json_values, max_size=2).map(tuple),
    ),
    st.builds(_wire.Event, st.text(), st.text(), st.text(), st.none() | times, st.none() | times),
    st.builds(_wire.PlatformStats, cores, ram, st.none() | gpus, st.none() | instances, raws),
    st.builds(_wire.Image, st.text(), st.lists(kinds, max_size=2).map(tuple), optional_text, raws),
    st.builds(_wire.ResourceOptions, choices, choices, choices, optional_int, raws),
    st.builds(_wire.Availability, st.booleans(), st.lists(st.text(), max_size=2).map(tuple)),
    specs,
    specs.map(lambda spec: spec.launches()[-1]),
)


@st.composite
def damage_payload(draw: st.DrawFn, payload: dict[str, Any]) -> dict[str, Any]:
    """Remove fields from a payload, and replace others by random values."""
    keys = st.sets(st.sampled_from(sorted(payload)), max_size=6)
    gone, wrong = draw(keys), draw(keys)
    kept = {key: value for key, value in payload.items() if key not in gone}
    return kept | {key: draw(json_values) for key in wrong}
