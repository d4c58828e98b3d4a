"""The calls of the API: texts, statuses and shapes, without HTTP."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from kaleden.local import Event, HTTPError, Platform, Settings
from kaleden.local._api._render import (
    format_cores,
    format_events,
    format_gigabytes,
    format_java_time,
)
from kaleden.local._api._service import ApiRequest, ApiResponse, Service
from kaleden.local._platform._create_params import Parameters
from kaleden.local._platform._model import DAY, GIB, HOUR
from local.worlds import IMAGE

NOW = 1_790_000_000.0
LOG = Path("some.log")


def make_service() -> Service:
    settings = Settings(millicores=4000, ram=64 * GIB)
    return Service(Platform(settings, random.Random(0)), "http://here:1", lambda _: LOG)


@define
class Desk:
    """Somebody who makes calls, with a clock on the wall."""

    service: Service = field(factory=make_service)
    now: float = NOW
    user: str | None = "ada"

    def call(self, method: str, path: str, **parameters: str) -> ApiResponse:
        call = ApiRequest(
            method, path, Parameters.from_pairs(parameters.items()), self.user, self.now
        )
        return self.service.handle(call)

    def get(self, path: str, **parameters: str) -> ApiResponse:
        return self.call("GET", path, **parameters)

    def json(self, path: str, **parameters: str) -> Any:
        reply = self.get(path, **parameters)
        assert (200, "application/json") == (reply.status, reply.content_type)
        return json.loads(reply.body)

    def create(self, **fields: str) -> str:
        reply = self.call("POST", "/v1/session", **{"name": "n", "image": IMAGE, **fields})
        assert (200, "text/plain") == (reply.status, reply.content_type)
        return reply.body.decode().removesuffix("\n")


@pytest.fixture
def desk() -> Desk:
    return Desk()


def said(reply: ApiResponse) -> tuple[int, str]:
    return reply.status, reply.body.decode()


def test_a_create_answers_with_the_id_and_a_newline(desk: Desk) -> None:
    reply = desk.call("POST", "/v1/session", name="n", image=IMAGE)
    assert 9 == len(reply.body)
    assert b"\n" == reply.body[8:]
    assert (("x-vo-authenticated", "ada"),) == reply.headers


def test_a_running_session_is_told_with_all_that_is_known(desk: Desk) -> None:
    id_ = desk.create(name="Demo-1", cores="1", ram="4")
    desk.service.platform.started(id_, NOW)
    desk.service.platform.measured(id_, 120_000_000, 0.0034)
    assert {
        "id": id_,
        "userid": "ada",
        "runAsUID": "10001",
        "runAsGID": "10001",
        "supplementalGroups": [],
        "image": IMAGE,
        "type": "headless",
        "status": "Running",
        "name": "demo-1",
        "startTime": "2026-09-21T14:13:20Z",
        "expiryTime": "2026-10-05T14:13:20Z",
        "connectURL": "",
        "requestedRAM": "4.29",
        "requestedCPUCores": "1",
        "requestedGPUCores": "0",
        "ramInUse": "0.12",
        "cpuCoresInUse": "0.003",
        "isFixedResources": True,
    } == desk.json(f"/v1/session/{id_}")


def test_a_queued_session_has_no_times_no_use_and_if_flexible_no_request(desk: Desk) -> None:
    for _ in range(4):
        desk.create()
    info = desk.json(f"/v1/session/{desk.create()}")
    assert ("Pending", False) == (info["status"], info["isFixedResources"])
    absent = {"startTime", "expiryTime", "ramInUse", "cpuCoresInUse", "requestedRAM", "appid"}
    assert not absent & info.keys()


def test_list_and_info_tell_the_same(desk: Desk) -> None:
    id_ = desk.create()
    assert [desk.json(f"/v1/session/{id_}")] == desk.json("/v1/session")


def test_both_versions_and_a_slash_at_the_end_are_the_same(desk: Desk) -> None:
    id_ = desk.create()
    assert desk.get(f"/v0/session/{id_}") == desk.get(f"/v1/session/{id_}/")


def test_json_is_indented(desk: Desk) -> None:
    assert b"[]" == desk.get("/v1/session").body
    desk.create()
    assert desk.get("/v1/session").body.startswith(b'[\n  {\n    "id": ')


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("carta", "http://here:1/session/carta/ID/"),
        ("contributed", "http://here:1/session/contrib/ID/"),
        ("desktop", "http://here:1/session/desktop/ID/?password=ID&path=session/desktop/ID/"),
        ("firefly", "http://here:1/session/firefly/ID/firefly/"),
        ("notebook", "http://here:1/session/notebook/ID/lab/tree/arc/home/ada?token=ID"),
    ],
)
def test_interactive_kinds_have_pages(desk: Desk, kind: str, url: str) -> None:
    id_ = desk.create(type=kind)
    info = desk.json(f"/v1/session/{id_}")
    assert (kind, "Running") == (info["type"], info["status"])
    assert url.replace("ID", id_) == info["connectURL"]


def test_the_list_is_filtered_by_type_and_status_in_any_case(desk: Desk) -> None:
    notebook, headless = desk.create(type="notebook"), desk.create()
    assert [notebook] == [s["id"] for s in desk.json("/v1/session", type="NoteBook")]
    assert [headless] == [s["id"] for s in desk.json("/v1/session", status="pending")]
    assert [] == desk.json("/v1/session", type="what")
    assert [] == desk.json("/v1/session", status="what")
    assert 2 == len(desk.json("/v1/session", view="what"))


def test_desktop_apps_show_only_when_asked_for(desk: Desk) -> None:
    id_ = desk.create(type="desktop")
    appid = desk.call("POST", f"/v1/session/{id_}/app", image="elsewhere/x:1").body.decode().strip()
    assert [None] == [s.get("appid") for s in desk.json("/v1/session")]
    assert [appid] == [s["appid"] for s in desk.json("/v1/session", type="desktop-app")]
    assert "desktop" == desk.json(f"/v1/session/{id_}")["type"]
    interactive = desk.json("/v1/session", view="INTERACTIVE", type="ignored")
    assert ["desktop", "desktop-app"] == [s["type"] for s in interactive]


def test_the_interactive_view_drops_headless_and_filters_by_status(desk: Desk) -> None:
    desk.create()
    desk.create(type="notebook")
    assert ["notebook"] == [s["type"] for s in desk.json("/v1/session", view="interactive")]
    assert [] == desk.json("/v1/session", view="interactive", status="Failed")


def test_the_view_of_all_has_few_fields_and_everybody(desk: Desk) -> None:
    desk.create(type="notebook")
    desk.user = "bob"
    assert [] == desk.json("/v1/session")
    (seen,) = desk.json("/v1/session", view="all")
    assert {
        "userid": "ada",
        "type": "notebook",
        "status": "Running",
        "startTime": "2026-09-21T14:13:20Z",
    } == seen


@pytest.mark.parametrize("id_", ["nothere0", "", "a.b_c"])
def test_an_unknown_session_is_404(desk: Desk, id_: str) -> None:
    path = f"/v1/session/{id_ or 'x'}"
    assert (404, f"session {id_ or 'x'} not found\n") == said(desk.get(path))


def test_somebody_elses_session_is_404(desk: Desk) -> None:
    id_ = desk.create()
    desk.user = "bob"
    assert (404, f"session {id_} not found\n") == said(desk.get(f"/v1/session/{id_}"))


@pytest.mark.parametrize("id_", ["-x", "a%20b", "a" * 64, "%3F", "%C3%A9"])
def test_an_id_that_is_no_label_is_400(desk: Desk, id_: str) -> None:
    assert 400 == desk.get(f"/v1/session/{id_}").status
    assert 400 == desk.get(f"/v1/session/{id_}", view="logs").status


def test_an_encoded_slash_does_not_get_through(desk: Desk) -> None:
    id_ = desk.create(type="desktop")
    appid = desk.call("POST", f"/v1/session/{id_}/app", image="x").body.decode().strip()
    assert 400 == desk.call("DELETE", f"/v1/session/{id_}%2F{appid}").status
    assert 1 == len(desk.json(f"/v1/session/{id_}/app"))


def test_logs_are_200_and_empty_for_whom_is_not_there(desk: Desk) -> None:
    reply = desk.get("/v1/session/nothere0", view="logs")
    assert (200, b"", None) == (reply.status, reply.body, reply.file)
    assert LOG == desk.get(f"/v1/session/{desk.create()}", view="logs").file


def test_events_of_who_waits_in_the_queue_are_404_with_a_dot(desk: Desk) -> None:
    for _ in range(4):
        desk.create()
    id_ = desk.create()
    assert "Pending" == desk.json(f"/v1/session/{id_}")["status"]
    expected = (404, f"session {id_} not found.\n")
    assert expected == said(desk.get(f"/v1/session/{id_}", view="events"))


def test_events_are_a_table(desk: Desk) -> None:
    id_ = desk.create(type="notebook")
    lines = desk.get(f"/v1/session/{id_}", view="events").body.decode().splitlines()
    assert ["TYPE", "REASON", "MESSAGE", "FIRST-TIME", "LAST-TIME"] == lines[0].split()
    assert ["Normal", "Scheduled"] == lines[1].split()[:2]
    assert lines[1].endswith("2026-09-21T14:13:20Z   2026-09-21T14:13:20Z")
    assert lines[0].index("MESSAGE") == lines[1].index("Successfully")


def test_no_events_are_told_as_none() -> None:
    assert "<none>\n" == format_events([])
    assert 2 == format_events([Event("T", "R", "M", 0, 0)]).count("\n")


def test_a_renewed_session_expires_later_and_the_answer_is_empty(desk: Desk) -> None:
    id_ = desk.create(type="notebook")
    before = desk.json(f"/v1/session/{id_}")["expiryTime"]
    desk.now += DAY
    assert (200, "") == said(desk.call("POST", f"/v1/session/{id_}", action="renew"))
    after = desk.json(f"/v1/session/{id_}")["expiryTime"]
    assert ("2026-09-25T14:13:20Z", "2026-09-26T14:13:20Z") == (before, after)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({}, "Cannot modify an existing session\n"),
        ({"action": "stop"}, "unrecognized action\n"),
        ({"action": "renew"}, "No active job for user ada with session nothere0\n"),
    ],
)
def test_other_changes_are_400(desk: Desk, parameters: dict[str, str], text: str) -> None:
    assert (400, text) == said(desk.call("POST", "/v1/session/nothere0", **parameters))


def test_delete_is_always_200_and_empty(desk: Desk) -> None:
    id_ = desk.create()
    for _ in range(2):
        assert (200, "") == said(desk.call("DELETE", f"/v1/session/{id_}"))
    assert [] == desk.json("/v1/session")


def test_not_all_sessions_can_be_deleted_at_once(desk: Desk) -> None:
    assert (400, "Cannot kill all sessions.\n") == said(desk.call("DELETE", "/v1/session"))


def test_what_kubernetes_does_not_take_is_a_500_that_hides_why(desk: Desk) -> None:
    reply = desk.call("POST", "/v1/session", name="n-", image=IMAGE)
    assert 500 == reply.status
    text = reply.body.decode()
    assert text.startswith("unexpected exception: java.lang.RuntimeException: io.kubernetes")
    assert 'jobs.batch \\"skaha-headless-ada-' in text
    assert not text.endswith("\n")
    assert [] == desk.json("/v1/session")


def test_the_limit_on_interactive_sessions_is_a_400(desk: Desk) -> None:
    desk = Desk(
        Service(Platform(Settings(millicores=4000, ram=64 * GIB, max_interactive_sessions=0)), "")
    )
    reply = desk.call("POST", "/v1/session", name="n", image=IMAGE, type="notebook")
    assert (400, "User ada has reached the maximum of 0 active sessions.\n") == said(reply)


def test_a_registry_secret_is_checked(desk: Desk) -> None:
    parameters = Parameters.from_pairs([("name", "n"), ("image", IMAGE)])
    call = ApiRequest("POST", "/v1/session", parameters, "ada", NOW, registry_secret="?")
    assert 400 == desk.service.handle(call).status


def test_a_private_image_needs_a_login_at_the_registry_which_is_kept(desk: Desk) -> None:
    image = "images.canfar.net/private/lab:1"
    refused = desk.call("POST", "/v1/session", name="n", image=image)
    text = f"No authentication provided for unknown or private image {image}\n"
    assert (400, text) == said(refused)
    parameters = Parameters.from_pairs([("name", "n"), ("image", image)])
    call = ApiRequest("POST", "/v1/session", parameters, "ada", NOW, registry_secret="YTpi")
    assert 200 == desk.service.handle(call).status
    assert {"ada": ("a", "b")} == desk.service.registry_logins
    assert "YTpi" not in repr(call)
    assert image not in {each["id"] for each in desk.json("/v1/image")}


def test_a_user_may_have_a_limit_of_their_own(desk: Desk) -> None:
    desk.service.platform.limits["ada"] = 1
    desk.create(type="notebook")
    refused = desk.call("POST", "/v1/session", name="n", image=IMAGE, type="notebook")
    assert (400, "User ada has reached the maximum of 1 active sessions.\n") == said(refused)
    assert 1 == desk.json("/v1/context")["maxInteractiveSessions"]
    desk.user = "bob"
    assert 5 == desk.json("/v1/context")["maxInteractiveSessions"]
    desk.create(type="notebook")


def test_desktop_apps_live_under_their_desktop(desk: Desk) -> None:
    id_ = desk.create(type="desktop")
    reply = desk.call("POST", f"/v1/session/{id_}/app", image="x/y:1", cores="2")
    appid = reply.body.decode().removesuffix("\n")
    app = desk.json(f"/v1/session/{id_}/app/{appid}")
    assert (id_, appid, "desktop-app", "") == (
        app["id"],
        app["appid"],
        app["type"],
        app["connectURL"],
    )
    assert [app] == desk.json("/v1/session/whatever/app")
    assert [app] == desk.json(f"/v1/session/{id_}/app", status="running")
    assert [] == desk.json(f"/v1/session/{id_}/app", status="Pending")
    assert {"userid", "type", "status", "startTime"} == desk.json(
        f"/v1/session/{id_}/app", view="all"
    )[0].keys()
    assert 400 == desk.call("POST", f"/v1/session/{id_}/app/{appid}").status

    for _ in range(2):
        assert (200, "") == said(desk.call("DELETE", f"/v1/session/{id_}/app/{appid}"))
    expected = f"desktop app with session {id_} and app ID {appid} was not found\n"
    assert (404, expected) == said(desk.get(f"/v1/session/{id_}/app/{appid}"))


def test_an_app_of_a_desktop_that_does_not_run_is_404(desk: Desk) -> None:
    assert 404 == desk.call("POST", "/v1/session/nothere0/app", image="x/y:1").status


def test_statistics_tell_what_is_reserved_and_what_there_is(desk: Desk) -> None:
    desk.create(cores="2", ram="4", gpus="1")
    stats = desk.json("/v1/session", view="stats")
    assert {
        "requestedCPUCores": 2.0,
        "cpuCoresAvailable": 4.0,
        "maxCPUCores": {"cpuCores": 4.0, "withRam": "64G"},
    } == stats["cores"]
    assert {
        "requestedRAM": "4.295G",
        "ramAvailable": "68.719G",
        "maxRAM": {"ram": "64G", "withCPUCores": 4.0},
    } == stats["ram"]
    assert 1 == stats["gpu"]["requestedGPU"]


def test_images_are_listed_by_type(desk: Desk) -> None:
    everything = desk.json("/v1/image")
    assert {"id", "types", "digest"} == everything[0].keys()
    cartas = desk.json("/v1/image", type="carta")
    assert ["images.canfar.net/skaha/carta:latest"] == [image["id"] for image in cartas]
    assert (400, "unknown type: what\n") == said(desk.get("/v1/image", type="what"))


def test_the_context_tells_what_can_be_asked_for(desk: Desk) -> None:
    context = desk.json("/v1/context")
    assert [1, 2, 3, 4] == context["cores"]["options"]
    assert {"default", "defaultRequest", "defaultLimit", "options"} == context["memoryGB"].keys()
    assert 5 == context["maxInteractiveSessions"]


def test_the_repository_is_a_list_of_hosts(desk: Desk) -> None:
    assert ["images.canfar.net"] == desk.json("/v1/repository")


@pytest.mark.parametrize("path", ["/availability", "/capabilities", "/v1/capabilities"])
def test_availability_and_capabilities_are_xml_and_need_no_login(path: str) -> None:
    desk = Desk(user=None)
    reply = desk.get(path)
    assert 200 == reply.status
    assert (reply.content_type or "").startswith("text/xml")
    ET.fromstring(reply.body)
    assert 200 == desk.call("HEAD", path).status


def test_availability_says_yes(desk: Desk) -> None:
    root = ET.fromstring(desk.get("/availability").body)
    assert "true" == root.findtext("{http://www.ivoa.net/xml/VOSIAvailability/v1.0}available")


def test_capabilities_lead_to_the_sessions(desk: Desk) -> None:
    found = ET.fromstring(desk.get("/capabilities").body).findall("capability")
    urls = {c.attrib["standardID"]: c.findtext("interface/accessURL") for c in found}
    wanted = "http://www.opencadc.org/std/platform#session-1"
    assert "http://here:1/skaha/v1/session" == urls[wanted]


def test_without_a_login_everything_else_is_401_with_challenges() -> None:
    reply = Desk(user=None).get("/v1/session")
    assert (401, "Unauthorized\n") == said(reply)
    schemes = [value.split()[0] for name, value in reply.headers if name == "www-authenticate"]
    assert ["Bearer", "ivoa_x509", "ivoa_cookie", "ivoa_bearer"] == schemes


def test_newer_servers_answer_400_to_who_is_not_logged_in() -> None:
    newer = Service(make_service().platform, "http://here:1", anonymous=400)
    reply = Desk(newer, user=None).get("/v1/session")
    assert (400, "cannot get group memberships for anonymous\n") == said(reply)
    assert () == reply.headers


def test_who_is_refused_gets_no_further_than_what_is_open() -> None:
    service = make_service()
    refused = HTTPError(403, "no")
    for path, status in {"/v1/session": 403, "/availability": 200}.items():
        call = ApiRequest("GET", path, Parameters(), None, NOW, login_error=refused)
        assert status == service.handle(call).status


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/session", "GET, POST, DELETE"),
        ("HEAD", "/v1/session", "GET, POST, DELETE"),
        ("POST", "/v1/image", "GET"),
        ("DELETE", "/availability", "GET, HEAD"),
    ],
)
def test_other_methods_are_405(desk: Desk, method: str, path: str, allowed: str) -> None:
    reply = desk.call(method, path)
    assert (405, f"unsupported: HTTP {method}\n") == said(reply)
    assert ("allow", allowed) in reply.headers


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v2/session", "/v1/what", "/v1/session/a/b"])
def test_other_paths_are_a_page_that_says_404(desk: Desk, path: str) -> None:
    reply = desk.get(path)
    assert 404 == reply.status
    assert (reply.content_type or "").startswith("text/html")


def test_time_passes_before_a_call_is_answered(desk: Desk) -> None:
    id_ = desk.create(type="notebook")
    desk.now += 4 * DAY
    assert "Failed" == desk.json(f"/v1/session/{id_}")["status"]
    desk.now += DAY
    assert 404 == desk.get(f"/v1/session/{id_}").status


def test_a_finished_headless_session_vanishes_after_an_hour(desk: Desk) -> None:
    id_ = desk.create()
    desk.service.platform.ended(id_, NOW, 0)
    desk.now += HOUR - 1
    assert "Completed" == desk.json(f"/v1/session/{id_}")["status"]
    desk.now += 1
    assert [] == desk.json("/v1/session")
    assert None is desk.get(f"/v1/session/{id_}", view="logs").file


def test_numbers_and_times_are_written_as_the_server_does() -> None:
    assert ["4.29", "0.12"] == [format_gigabytes(4 * GIB), format_gigabytes(120_000_000)]
    assert ["2", "0.250", "1.500"] == [format_cores(2000), format_cores(250), format_cores(1500)]
    assert "2026-09-21T14:13:20Z" == format_java_time(NOW)
    assert "2026-09-21T14:13Z" == format_java_time(NOW - 20)
