"""`SkahaProvider`: blocks as sessions, their status, and their clean-up."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pytest

pytest.importorskip("anycorn")
pytest.importorskip("parsl")

from parsl.jobs.states import JobState
from parsl.launchers import SingleNodeLauncher
from parsl.providers.errors import ExecutionProviderException, SubmitException

import kaleden
from kaleden import Session
from kaleden._sessions._launch._script_env import VARIABLE, encode_script, to_session_name
from kaleden._sync._blocking_call import BlockingCall
from kaleden._wire import Request, Response
from kaleden.parsl import SkahaProvider
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from platforms import local_platform
from support import FULL_IMAGE, PLAIN_BACKENDS, FakeTransport, data, session_object, text

T = TypeVar("T")

QUICK: dict[str, Any] = {"latency": 0.0, "start_delay": 0.0}


@pytest.fixture(params=PLAIN_BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def platform() -> MemoryTransport:
    return MemoryTransport(**QUICK, duration=float("inf"))


@pytest.fixture
def session(backend: Any, platform: MemoryTransport) -> Iterator[Session]:
    with Session(transport=platform, backend=backend, settle=0.05) as session:
        yield session


@pytest.fixture
def provider(session: Session) -> Iterator[SkahaProvider]:
    with SkahaProvider(FULL_IMAGE, session, max_blocks=4) as provider:
        yield provider


def call_in_loop(session: Session, function: Callable[[], T]) -> T:
    """Call *function* in the event-loop thread, where the platform's clock runs."""

    async def call() -> T:
        return function()

    return BlockingCall(session._loop_thread).run(call)


def set_faults(session: Session, platform: MemoryTransport, *faults: Fault) -> None:
    """Replace the faults of the platform."""
    call_in_loop(session, partial(setattr, platform, "faults", FaultPlan(faults)))


def get_states(provider: SkahaProvider, *jobs: object) -> list[JobState]:
    return [status.state for status in provider.status(jobs)]


# --- blocks as sessions ---------------------------------------------------------------------------

SCRIPT = """
echo "two  spaces" 'and $dollars' "\\"quotes\\"" back\\\\slash a=b "ünïcode" `echo ticks`
export ANSWER=42
(echo $((ANSWER / 6))) | cat
test -z "$KALEDEN_BLOCK" && echo gone; exit 3
"""
OUTPUT = """two  spaces and $dollars "quotes" back\\slash a=b ünïcode ticks
7
gone
"""


def test_script_reaches_the_session_unchanged(tmp_path: Any) -> None:
    with local_platform() as server, Session(server.url, server.token) as session:
        with SkahaProvider(FULL_IMAGE, session, worker_init="true # begin") as provider:
            job = provider.submit(SCRIPT, 1)
            session.wait(job)
            assert {job: OUTPUT} == session.logs(job).successes
            [status] = provider.status([job])
            assert JobState.FAILED is status.state
            assert status.message is not None
            assert status.message.endswith(f"and wrote at its end:\n{OUTPUT}")
        assert [] == session.fetch()


def test_script_of_any_length_fits_in_a_variable() -> None:
    for length in range(3):
        word = "x" * length
        assert not set('=$"\\ ') & set(encode_script(f"echo {word}"))
        env = {**os.environ, VARIABLE: encode_script(f"echo {word}")}
        spec = SkahaProvider(FULL_IMAGE, Session(transport=MemoryTransport()))._spec
        done = subprocess.run([str(spec.cmd), *spec.args], env=env, capture_output=True, text=True)
        assert f"{word}\n" == done.stdout


def test_block_is_a_headless_session(platform: MemoryTransport, session: Session) -> None:
    sizes: dict[str, Any] = {"cores": 2.5, "ram": 4, "gpu": 1}
    with SkahaProvider(FULL_IMAGE, session, **sizes, env={"A": "b"}) as provider:
        provider.submit("work", 1, "parsl.HighThroughputExecutor.block-0")
        [remote] = call_in_loop(session, platform.sessions)
        name, _, token = remote.spec.name.rpartition("-")
        assert "parsl-highthroughputexecutor-block-0" == name
        assert 8 == len(token)
        assert "headless" == remote.spec.kind
        assert 2500 == remote.spec.millicores
        env = dict(remote.spec.env)
        assert ("b", "2", "4") == (env["A"], env["PARSL_CORES"], env["PARSL_MEMORY_GB"])
        assert (2, 4, 1) == (
            provider.cores_per_node,
            provider.mem_per_node,
            provider.nodes_per_block,
        )


@pytest.mark.parametrize(
    ("job", "name"),
    [
        ("parsl.htex.block-7", "parsl-htex-block-7"),
        ("Ünï_code", "n-code"),
        ("x" * 53 + "-" + "y" * 9, "x" * 53),
        ("...", "parsl"),
    ],
)
def test_job_name_is_converted_to_a_session_name(job: str, name: str) -> None:
    assert name == to_session_name(job)


def test_several_commands_on_a_node_require_a_launcher(session: Session) -> None:
    with SkahaProvider(FULL_IMAGE, session) as provider:
        with pytest.raises(SubmitException, match="launcher=SingleNodeLauncher"):
            provider.submit("work", 2)
    with SkahaProvider(FULL_IMAGE, session, launcher=SingleNodeLauncher()) as provider:
        assert provider.submit("work", 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "no image"}, "not an image reference"),
        ({"cores": 0}, "cores must be"),
        ({"env": {"A": "b=c"}}, "has '='"),
        ({"python": "python -u"}, "must be one word"),
        ({"max_blocks": 0}, "do not fit together"),
        ({"init_blocks": 2}, "do not fit together"),
        ({"parallelism": 2}, "from 0 to 1"),
        ({"grace": 0}, "grace is a number"),
        ({"session": "https://host.example"}, "not str"),
    ],
)
def test_invalid_options_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises((kaleden.InvalidRequest, kaleden.ConfigurationError), match=message):
        SkahaProvider(
            **{"image": FULL_IMAGE, "session": Session(transport=MemoryTransport()), **options}
        )


# --- the status of blocks -------------------------------------------------------------------------


def test_status_of_all_blocks_takes_one_list(
    platform: MemoryTransport, provider: SkahaProvider, session: Session
) -> None:
    jobs = [provider.submit("work", 1) for _ in range(4)]
    before = platform.requests.copy()
    assert [JobState.RUNNING] * 4 == get_states(provider, *jobs)
    assert {"list": 1} == platform.requests - before
    session.destroy(jobs[0])
    # Two lists without a block, at least a second apart, prove that it is gone; but not lists
    # that may be from before its create.
    now = time.monotonic()
    for seconds, first in [
        (1.0, JobState.RUNNING),
        (2.1, JobState.RUNNING),
        (31.0, JobState.RUNNING),
        (31.9, JobState.RUNNING),
        (32.1, JobState.MISSING),
    ]:
        provider._clock = partial(float, now + seconds)
        assert [first, JobState.RUNNING] == get_states(provider, *jobs[:2])


def test_one_empty_list_does_not_make_blocks_missing(
    platform: MemoryTransport, provider: SkahaProvider
) -> None:
    jobs = [provider.submit("work", 1) for _ in range(2)]
    platform.faults = FaultPlan([Fault(FaultKind.LAG, "list", nth={1, 3}, seconds=1000.0)])
    now = time.monotonic()
    for seconds in (1.0, 3.0, 5.0, 8.0):
        provider._clock = partial(float, now + seconds)
        assert JobState.MISSING not in get_states(provider, *jobs)


def test_status_of_an_unknown_job_sends_no_request(
    platform: MemoryTransport, provider: SkahaProvider
) -> None:
    [status] = provider.status(["stranger"])
    assert JobState.MISSING is status.state
    assert [] == provider.status([])
    assert 0 == platform.requests.total()


def test_status_of_an_ended_block_is_stored(backend: Any) -> None:
    platform = MemoryTransport(
        **QUICK,
        duration=0.0,
        fails=lambda session: session.spec.name.startswith("bad"),
        log=lambda session, _: f"a line of {session.spec.name[:3]}\n" * 500,
    )
    with Session(transport=platform, backend=backend) as session:
        with SkahaProvider(FULL_IMAGE, session, max_blocks=2) as provider:
            jobs = [provider.submit("work", 1, name) for name in ("good", "bad")]
            session.wait(jobs)
            for _ in range(2):
                assert [JobState.COMPLETED, JobState.FAILED] == get_states(provider, *jobs)
                session.destroy(jobs)
            assert 1 == platform.requests["logs"]
            message = provider.status(jobs)[1].message
            assert message is not None
            assert message.endswith("a line of bad\n")
            assert 2200 > len(message)
            # Parsl modifies the status objects that it receives.
            provider.status(jobs)[0].state = JobState.MISSING
            assert JobState.COMPLETED is provider.status(jobs)[0].state
        assert [] == call_in_loop(session, platform.sessions)


def test_failed_log_request_is_not_an_error(backend: Any) -> None:
    faults = FaultPlan([Fault(FaultKind.ERROR_BEFORE, "logs")])
    platform = MemoryTransport(**QUICK, duration=0.0, fails=lambda _: True, faults=faults)
    with (
        Session(transport=platform, backend=backend, retry=None) as session,
        SkahaProvider(FULL_IMAGE, session) as provider,
    ):
        job = provider.submit("work", 1)
        session.wait(job)
        [status] = provider.status([job])
        assert f"session {job} has ended as FAILED" == status.message


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("Pending", JobState.PENDING),
        ("Running", JobState.RUNNING),
        ("Terminating", JobState.CANCELLED),
        ("Succeeded", JobState.COMPLETED),
        ("Error", JobState.FAILED),
        ("Hibernated", JobState.UNKNOWN),
    ],
)
def test_statuses_are_mapped_to_parsl_states(status: str, state: JobState) -> None:
    async def reply(request: Request) -> Response:
        if request.method == "POST":
            return text("abc")
        return data([session_object("abc", status=status)] if request.method == "GET" else [])

    session = Session(transport=FakeTransport(reply))
    provider = SkahaProvider(FULL_IMAGE, session, grace=0.1)
    assert [state] == get_states(provider, provider.submit("work", 1))
    with suppress(kaleden.ScopeError):
        provider.close()


def test_failed_status_request_raises(
    platform: MemoryTransport, provider: SkahaProvider, session: Session
) -> None:
    job = provider.submit("work", 1)
    set_faults(session, platform, Fault(FaultKind.ERROR_BEFORE))
    with pytest.raises(ExecutionProviderException, match="500"):
        provider.status([job])
    assert [False] == provider.cancel([job])
    set_faults(session, platform)
    assert [JobState.RUNNING] == get_states(provider, job)


# --- clean-up -------------------------------------------------------------------------------------


def test_cancelled_block_is_gone(
    platform: MemoryTransport, provider: SkahaProvider, session: Session
) -> None:
    jobs = [provider.submit("work", 1) for _ in range(3)]
    assert [True, True] == provider.cancel(jobs[:2])
    assert jobs[2:] == [remote.id for remote in call_in_loop(session, platform.sessions)]
    expected = [JobState.CANCELLED, JobState.CANCELLED, JobState.RUNNING]
    assert expected == get_states(provider, *jobs)
    before = platform.requests["destroy"]
    assert [True] == provider.cancel(jobs[:1])
    provider.close()
    # The scope does not end cancelled sessions a second time.
    assert 1 == platform.requests["destroy"] - before


def test_other_sessions_are_not_touched(
    platform: MemoryTransport, provider: SkahaProvider, session: Session
) -> None:
    [mine] = session.create("mine", FULL_IMAGE).values
    assert [False, False] == provider.cancel([mine, None])
    provider.close()
    assert [mine] == [remote.id for remote in call_in_loop(session, platform.sessions)]


def test_blocks_end_with_the_provider(platform: MemoryTransport, session: Session) -> None:
    error = ValueError("in the block")
    with pytest.raises(ValueError, match="in the block") as caught:
        with SkahaProvider(FULL_IMAGE, session, max_blocks=3) as provider:
            jobs = [provider.submit("work", 1) for _ in range(3)]
            assert "<SkahaProvider images.canfar.net/skaha/astroml:latest: 3 of" in repr(provider)
            raise error
    assert error is caught.value
    assert [] == call_in_loop(session, platform.sessions)
    assert [JobState.CANCELLED] * 3 == get_states(provider, *jobs)
    assert [True] * 3 == provider.cancel(jobs)
    assert provider.error is None
    provider.close()
    with pytest.raises(SubmitException, match="was closed"):
        provider.submit("work", 1)
    # The client was opened before the provider, and remains open.
    assert [] == session.fetch()


def test_launch_with_a_lost_response_is_ended(backend: Any) -> None:
    faults = [Fault(FaultKind.RESET_AFTER, "create"), Fault(FaultKind.ERROR_BEFORE, "list")]
    platform = MemoryTransport(**QUICK, faults=FaultPlan(faults))
    with Session(transport=platform, backend=backend, settle=0.05, retry=None) as session:
        with SkahaProvider(FULL_IMAGE, session) as provider:
            with pytest.raises(SubmitException, match="unknown_effect"):
                provider.submit("work", 1)
            assert 1 == len(call_in_loop(session, platform.sessions))
            set_faults(session, platform)
        assert [] == call_in_loop(session, platform.sessions)


def test_survivors_are_reported(
    platform: MemoryTransport, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    provider = SkahaProvider(FULL_IMAGE, session, grace=0.2)
    job = provider.submit("work", 1)
    set_faults(session, platform, Fault(FaultKind.STALL, "destroy"))
    with pytest.raises(kaleden.ScopeError) as caught:
        provider.close()
    assert (job,) == caught.value.survivors
    assert caught.value is provider.error
    assert [JobState.UNKNOWN] == get_states(provider, job)
    assert [False] == provider.cancel([job])
    assert job in caplog.text


def test_refused_launch_raises(
    platform: MemoryTransport, provider: SkahaProvider, session: Session
) -> None:
    set_faults(session, platform, Fault(FaultKind.ERROR_BEFORE, "create"))
    with pytest.raises(SubmitException, match=r"Cannot launch job parsl\.x"):
        provider.submit("work", 1, "parsl.x")


def test_provider_is_thread_safe(platform: MemoryTransport, session: Session) -> None:
    provider = SkahaProvider(FULL_IMAGE, session, max_blocks=8)
    threads = [threading.Thread(target=provider.submit, args=("work", 1)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 8 == len(provider.resources)
    assert 8 == len(call_in_loop(session, platform.sessions))
    closer = threading.Thread(target=provider.close)
    closer.start()
    closer.join()
    assert [] == call_in_loop(session, platform.sessions)
