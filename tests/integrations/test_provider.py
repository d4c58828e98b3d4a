"""What Parsl's blocks become on a server, and that none is left there."""

from __future__ import annotations

import os
import subprocess
import threading
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
from kaleden._wire import Request, Response
from kaleden.parsl import SkahaProvider
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from platforms import local_platform
from support import PLAIN_BACKENDS, FakeTransport, data, session_object, text

IMAGE = "images.canfar.net/skaha/astroml:latest"
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
    with SkahaProvider(IMAGE, session, max_blocks=4) as provider:
        yield provider


def inside(session: Session, function: Callable[[], T]) -> T:
    """Call *function* where the platform's clock is."""

    async def call() -> T:
        return function()

    return session._begin().run(call)


def fail(session: Session, platform: MemoryTransport, *faults: Fault) -> None:
    """Let these go wrong, and nothing else."""
    inside(session, partial(setattr, platform, "faults", FaultPlan(faults)))


def states(provider: SkahaProvider, *jobs: object) -> list[JobState]:
    return [status.state for status in provider.status(jobs)]


# --- what a block is ------------------------------------------------------------------------------

SCRIPT = """
echo "two  spaces" 'and $dollars' "\\"quotes\\"" back\\\\slash a=b "ünïcode" `echo ticks`
export ANSWER=42
(echo $((ANSWER / 6))) | cat
test -z "$KALEDEN_BLOCK" && echo gone; exit 3
"""
SAID = """two  spaces and $dollars "quotes" back\\slash a=b ünïcode ticks
7
gone
"""


def test_a_script_arrives_as_it_was_written(tmp_path: Any) -> None:
    with local_platform() as server, Session(server.url, server.token) as session:
        with SkahaProvider(IMAGE, session, worker_init="true # begin") as provider:
            job = provider.submit(SCRIPT, 1)
            session.wait(job)
            assert {job: SAID} == session.logs(job).successes
            [status] = provider.status([job])
            assert JobState.FAILED is status.state
            assert status.message is not None
            assert status.message.endswith(f"and wrote at its end:\n{SAID}")
        assert [] == session.fetch()


def test_a_script_of_any_length_is_no_more_than_a_variable_may_be() -> None:
    for length in range(3):
        said = "x" * length
        assert not set('=$"\\ ') & set(encode_script(f"echo {said}"))
        env = {**os.environ, VARIABLE: encode_script(f"echo {said}")}
        spec = SkahaProvider(IMAGE, Session(transport=MemoryTransport()))._spec
        done = subprocess.run([str(spec.cmd), *spec.args], env=env, capture_output=True, text=True)
        assert f"{said}\n" == done.stdout


def test_a_block_is_a_headless_session(platform: MemoryTransport, session: Session) -> None:
    sizes: dict[str, Any] = {"cores": 2.5, "ram": 4, "gpu": 1}
    with SkahaProvider(IMAGE, session, **sizes, env={"A": "b"}) as provider:
        provider.submit("work", 1, "parsl.HighThroughputExecutor.block-0")
        [remote] = inside(session, platform.sessions)
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
def test_the_name_of_any_job_becomes_one_of_a_session(job: str, name: str) -> None:
    assert name == to_session_name(job)


def test_more_than_one_command_on_a_node_takes_a_launcher(session: Session) -> None:
    with SkahaProvider(IMAGE, session) as provider:
        with pytest.raises(SubmitException, match="launcher=SingleNodeLauncher"):
            provider.submit("work", 2)
    with SkahaProvider(IMAGE, session, launcher=SingleNodeLauncher()) as provider:
        assert provider.submit("work", 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image": "no image"}, "no image reference"),
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
def test_what_cannot_work_is_refused_at_once(options: dict[str, Any], said: str) -> None:
    with pytest.raises((kaleden.InvalidRequest, kaleden.ConfigurationError), match=said):
        SkahaProvider(
            **{"image": IMAGE, "session": Session(transport=MemoryTransport()), **options}
        )


# --- how blocks stand -----------------------------------------------------------------------------


def test_one_list_tells_how_all_stand(
    platform: MemoryTransport, provider: SkahaProvider, session: Session
) -> None:
    jobs = [provider.submit("work", 1) for _ in range(4)]
    before = platform.requests.copy()
    assert [JobState.RUNNING] * 4 == states(provider, *jobs)
    assert {"list": 1} == platform.requests - before
    session.destroy(jobs[0])
    assert [JobState.MISSING, JobState.RUNNING] == states(provider, *jobs[:2])


def test_nobody_is_asked_about_what_was_never_launched(
    platform: MemoryTransport, provider: SkahaProvider
) -> None:
    [status] = provider.status(["stranger"])
    assert JobState.MISSING is status.state
    assert [] == provider.status([])
    assert 0 == platform.requests.total()


def test_an_end_is_remembered(backend: Any) -> None:
    platform = MemoryTransport(
        **QUICK,
        duration=0.0,
        fails=lambda session: session.spec.name.startswith("bad"),
        log=lambda session, _: f"a word of {session.spec.name[:3]}\n" * 500,
    )
    with Session(transport=platform, backend=backend) as session:
        with SkahaProvider(IMAGE, session, max_blocks=2) as provider:
            jobs = [provider.submit("work", 1, name) for name in ("good", "bad")]
            session.wait(jobs)
            for _ in range(2):
                assert [JobState.COMPLETED, JobState.FAILED] == states(provider, *jobs)
                session.destroy(jobs)
            assert 1 == platform.requests["logs"]
            message = provider.status(jobs)[1].message
            assert message is not None
            assert message.endswith("a word of bad\n")
            assert 2200 > len(message)
            # Parsl writes into what it is given.
            provider.status(jobs)[0].state = JobState.MISSING
            assert JobState.COMPLETED is provider.status(jobs)[0].state
        assert [] == inside(session, platform.sessions)


def test_why_it_failed_is_not_worth_an_error(backend: Any) -> None:
    faults = FaultPlan([Fault(FaultKind.ERROR_BEFORE, "logs")])
    platform = MemoryTransport(**QUICK, duration=0.0, fails=lambda _: True, faults=faults)
    with (
        Session(transport=platform, backend=backend, retry=None) as session,
        SkahaProvider(IMAGE, session) as provider,
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
def test_states_are_said_in_the_words_of_parsl(status: str, state: JobState) -> None:
    async def reply(request: Request) -> Response:
        if request.method == "POST":
            return text("abc")
        return data([session_object("abc", status=status)] if request.method == "GET" else [])

    session = Session(transport=FakeTransport(reply))
    provider = SkahaProvider(IMAGE, session, grace=0.1)
    assert [state] == states(provider, provider.submit("work", 1))
    with suppress(kaleden.ScopeError):
        provider.close()


def test_a_server_that_cannot_be_asked_is_told_of(
    platform: MemoryTransport, provider: SkahaProvider, session: Session
) -> None:
    job = provider.submit("work", 1)
    fail(session, platform, Fault(FaultKind.ERROR_BEFORE))
    with pytest.raises(ExecutionProviderException, match="500"):
        provider.status([job])
    assert [False] == provider.cancel([job])
    fail(session, platform)
    assert [JobState.RUNNING] == states(provider, job)


# --- and that none is left ------------------------------------------------------------------------


def test_a_cancelled_block_is_gone(
    platform: MemoryTransport, provider: SkahaProvider, session: Session
) -> None:
    jobs = [provider.submit("work", 1) for _ in range(3)]
    assert [True, True] == provider.cancel(jobs[:2])
    assert jobs[2:] == [remote.id for remote in inside(session, platform.sessions)]
    wanted = [JobState.CANCELLED, JobState.CANCELLED, JobState.RUNNING]
    assert wanted == states(provider, *jobs)
    before = platform.requests["destroy"]
    assert [True] == provider.cancel(jobs[:1])
    provider.close()
    # What was cancelled is not the scope's any more.
    assert 1 == platform.requests["destroy"] - before


def test_the_sessions_of_others_are_not_touched(
    platform: MemoryTransport, provider: SkahaProvider, session: Session
) -> None:
    [mine] = session.create("mine", IMAGE).values
    assert [False, False] == provider.cancel([mine, None])
    provider.close()
    assert [mine] == [remote.id for remote in inside(session, platform.sessions)]


def test_blocks_end_with_the_provider(platform: MemoryTransport, session: Session) -> None:
    error = ValueError("in the block")
    with pytest.raises(ValueError, match="in the block") as caught:
        with SkahaProvider(IMAGE, session, max_blocks=3) as provider:
            jobs = [provider.submit("work", 1) for _ in range(3)]
            assert "<SkahaProvider images.canfar.net/skaha/astroml:latest: 3 of" in repr(provider)
            raise error
    assert error is caught.value
    assert [] == inside(session, platform.sessions)
    assert [JobState.CANCELLED] * 3 == states(provider, *jobs)
    assert [True] * 3 == provider.cancel(jobs)
    assert provider.error is None
    provider.close()
    with pytest.raises(SubmitException, match="was closed"):
        provider.submit("work", 1)
    # The session was there before, and stays.
    assert [] == session.fetch()


def test_a_launch_whose_answer_is_lost_is_accounted_for(backend: Any) -> None:
    troubles = [Fault(FaultKind.RESET_AFTER, "create"), Fault(FaultKind.ERROR_BEFORE, "list")]
    platform = MemoryTransport(**QUICK, faults=FaultPlan(troubles))
    with Session(transport=platform, backend=backend, settle=0.05, retry=None) as session:
        with SkahaProvider(IMAGE, session) as provider:
            with pytest.raises(SubmitException, match="unknown_effect"):
                provider.submit("work", 1)
            assert 1 == len(inside(session, platform.sessions))
            fail(session, platform)
        assert [] == inside(session, platform.sessions)


def test_what_may_be_left_is_named(
    platform: MemoryTransport, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    provider = SkahaProvider(IMAGE, session, grace=0.2)
    job = provider.submit("work", 1)
    fail(session, platform, Fault(FaultKind.STALL, "destroy"))
    with pytest.raises(kaleden.ScopeError) as caught:
        provider.close()
    assert (job,) == caught.value.survivors
    assert caught.value is provider.error
    assert [JobState.UNKNOWN] == states(provider, job)
    assert [False] == provider.cancel([job])
    assert job in caplog.text


def test_a_refused_launch_is_told(
    platform: MemoryTransport, provider: SkahaProvider, session: Session
) -> None:
    fail(session, platform, Fault(FaultKind.ERROR_BEFORE, "create"))
    with pytest.raises(SubmitException, match=r"Cannot launch job parsl\.x"):
        provider.submit("work", 1, "parsl.x")


def test_any_thread_may_launch_and_end(platform: MemoryTransport, session: Session) -> None:
    provider = SkahaProvider(IMAGE, session, max_blocks=8)
    threads = [threading.Thread(target=provider.submit, args=("work", 1)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 8 == len(provider.resources)
    assert 8 == len(inside(session, platform.sessions))
    closer = threading.Thread(target=provider.close)
    closer.start()
    closer.join()
    assert [] == inside(session, platform.sessions)
