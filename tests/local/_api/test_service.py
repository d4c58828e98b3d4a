"""The endpoints of the API without HTTP: texts, status codes and response bodies."""

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
from support import FULL_IMAGE

NOW = 1_790_000_000.0
LOG = Path("some.log")


def make_service() -> Service:
    settings = Settings(millicores=4000, ram=64 * GIB)
    return Service(Platform(settings, random.Random(0)), "http://here:1", lambda _: LOG)


@define
class ApiClient:
    """A client of the service, with a user and a clock that tests set."""

    service: Service = field(factory=make_service)
    now: float = NOW
    user: str | None = "ada"

    def send(self, method: str, path: str, **parameters: str) -> ApiResponse:
        request = ApiRequest(
            method, path, Parameters.from_pairs(parameters.items()), self.user, self.now
        )
        return self.service.handle(request)

    def get(self, path: str, **parameters: str) -> ApiResponse:
        return self.send("GET", path, **parameters)

    def get_json(self, path: str, **parameters: str) -> Any:
        response = self.get(path, **parameters)
        assert (200, "application/json") == (response.status, response.content_type)
        return json.loads(response.body)

    def create(self, **fields: str) -> str:
        response = self.send("POST", "/v1/session", **{"name": "n", "image": FULL_IMAGE, **fields})
        assert (200, "text/plain") == (response.status, response.content_type)
        return response.body.decode().removesuffix("\n")


@pytest.fixture
def api() -> ApiClient:
    return ApiClient()


def get_status_and_text(response: ApiResponse) -> tuple[int, str]:
    return response.status, response.body.decode()


def test_create_returns_id_and_newline(api: ApiClient) -> None:
    response = api.send("POST", "/v1/session", name="n", image=FULL_IMAGE)
    assert 9 == len(response.body)
    assert b"\n" == response.body[8:]
    assert (("x-vo-authenticated", "ada"),) == response.headers


def test_running_session_has_all_known_fields(api: ApiClient) -> None:
    id_ = api.create(name="Demo-1", cores="1", ram="4")
    api.service.platform.started(id_, NOW)
    api.service.platform.measured(id_, 120_000_000, 0.0034)
    assert {
        "id": id_,
        "userid": "ada",
        "runAsUID": "10001",
        "runAsGID": "10001",
        "supplementalGroups": [],
        "image": FULL_IMAGE,
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
    } == api.get_json(f"/v1/session/{id_}")


def test_queued_session_has_no_times_usage_or_flexible_request(api: ApiClient) -> None:
    for _ in range(4):
        api.create()
    info = api.get_json(f"/v1/session/{api.create()}")
    assert ("Pending", False) == (info["status"], info["isFixedResources"])
    absent = {"startTime", "expiryTime", "ramInUse", "cpuCoresInUse", "requestedRAM", "appid"}
    assert not absent & info.keys()


def test_list_and_info_return_same_object(api: ApiClient) -> None:
    id_ = api.create()
    assert [api.get_json(f"/v1/session/{id_}")] == api.get_json("/v1/session")


def test_both_versions_and_trailing_slash_give_same_response(api: ApiClient) -> None:
    id_ = api.create()
    assert api.get(f"/v0/session/{id_}") == api.get(f"/v1/session/{id_}/")


def test_json_is_indented(api: ApiClient) -> None:
    assert b"[]" == api.get("/v1/session").body
    api.create()
    assert api.get("/v1/session").body.startswith(b'[\n  {\n    "id": ')


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
def test_interactive_kinds_have_pages(api: ApiClient, kind: str, url: str) -> None:
    id_ = api.create(type=kind)
    info = api.get_json(f"/v1/session/{id_}")
    assert (kind, "Running") == (info["type"], info["status"])
    assert url.replace("ID", id_) == info["connectURL"]


def test_list_filters_by_type_and_status_ignoring_case(api: ApiClient) -> None:
    notebook, headless = api.create(type="notebook"), api.create()
    assert [notebook] == [s["id"] for s in api.get_json("/v1/session", type="NoteBook")]
    assert [headless] == [s["id"] for s in api.get_json("/v1/session", status="pending")]
    assert [] == api.get_json("/v1/session", type="what")
    assert [] == api.get_json("/v1/session", status="what")
    assert 2 == len(api.get_json("/v1/session", view="what"))


def test_desktop_apps_are_listed_only_on_request(api: ApiClient) -> None:
    id_ = api.create(type="desktop")
    appid = api.send("POST", f"/v1/session/{id_}/app", image="elsewhere/x:1").body.decode().strip()
    assert [None] == [s.get("appid") for s in api.get_json("/v1/session")]
    assert [appid] == [s["appid"] for s in api.get_json("/v1/session", type="desktop-app")]
    assert "desktop" == api.get_json(f"/v1/session/{id_}")["type"]
    interactive = api.get_json("/v1/session", view="INTERACTIVE", type="ignored")
    assert ["desktop", "desktop-app"] == [s["type"] for s in interactive]


def test_interactive_view_excludes_headless_and_filters_by_status(api: ApiClient) -> None:
    api.create()
    api.create(type="notebook")
    assert ["notebook"] == [s["type"] for s in api.get_json("/v1/session", view="interactive")]
    assert [] == api.get_json("/v1/session", view="interactive", status="Failed")


def test_all_view_has_few_fields_and_all_users(api: ApiClient) -> None:
    api.create(type="notebook")
    api.user = "bob"
    assert [] == api.get_json("/v1/session")
    (seen,) = api.get_json("/v1/session", view="all")
    assert {
        "userid": "ada",
        "type": "notebook",
        "status": "Running",
        "startTime": "2026-09-21T14:13:20Z",
    } == seen


@pytest.mark.parametrize("id_", ["nothere0", "", "a.b_c"])
def test_unknown_session_gets_404(api: ApiClient, id_: str) -> None:
    path = f"/v1/session/{id_ or 'x'}"
    assert (404, f"session {id_ or 'x'} not found\n") == get_status_and_text(api.get(path))


def test_session_of_other_user_gets_404(api: ApiClient) -> None:
    id_ = api.create()
    api.user = "bob"
    assert (404, f"session {id_} not found\n") == get_status_and_text(api.get(f"/v1/session/{id_}"))


@pytest.mark.parametrize("id_", ["-x", "a%20b", "a" * 64, "%3F", "%C3%A9"])
def test_id_that_is_not_a_label_gets_400(api: ApiClient, id_: str) -> None:
    assert 400 == api.get(f"/v1/session/{id_}").status
    assert 400 == api.get(f"/v1/session/{id_}", view="logs").status


def test_encoded_slash_in_id_gets_400(api: ApiClient) -> None:
    id_ = api.create(type="desktop")
    appid = api.send("POST", f"/v1/session/{id_}/app", image="x").body.decode().strip()
    assert 400 == api.send("DELETE", f"/v1/session/{id_}%2F{appid}").status
    assert 1 == len(api.get_json(f"/v1/session/{id_}/app"))


def test_logs_of_unknown_session_are_empty(api: ApiClient) -> None:
    response = api.get("/v1/session/nothere0", view="logs")
    assert (200, b"", None) == (response.status, response.body, response.file)
    assert LOG == api.get(f"/v1/session/{api.create()}", view="logs").file


def test_events_of_queued_session_get_404_with_dot(api: ApiClient) -> None:
    for _ in range(4):
        api.create()
    id_ = api.create()
    assert "Pending" == api.get_json(f"/v1/session/{id_}")["status"]
    expected = (404, f"session {id_} not found.\n")
    assert expected == get_status_and_text(api.get(f"/v1/session/{id_}", view="events"))


def test_events_are_a_table(api: ApiClient) -> None:
    id_ = api.create(type="notebook")
    lines = api.get(f"/v1/session/{id_}", view="events").body.decode().splitlines()
    assert ["TYPE", "REASON", "MESSAGE", "FIRST-TIME", "LAST-TIME"] == lines[0].split()
    assert ["Normal", "Scheduled"] == lines[1].split()[:2]
    assert lines[1].endswith("2026-09-21T14:13:20Z   2026-09-21T14:13:20Z")
    assert lines[0].index("MESSAGE") == lines[1].index("Successfully")


def test_empty_events_table_is_none() -> None:
    assert "<none>\n" == format_events([])
    assert 2 == format_events([Event("T", "R", "M", 0, 0)]).count("\n")


def test_renewed_session_expires_later(api: ApiClient) -> None:
    id_ = api.create(type="notebook")
    before = api.get_json(f"/v1/session/{id_}")["expiryTime"]
    api.now += DAY
    assert (200, "") == get_status_and_text(api.send("POST", f"/v1/session/{id_}", action="renew"))
    after = api.get_json(f"/v1/session/{id_}")["expiryTime"]
    assert ("2026-09-25T14:13:20Z", "2026-09-26T14:13:20Z") == (before, after)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({}, "Cannot modify an existing session\n"),
        ({"action": "stop"}, "unrecognized action\n"),
        ({"action": "renew"}, "No active job for user ada with session nothere0\n"),
    ],
)
def test_other_changes_get_400(api: ApiClient, parameters: dict[str, str], text: str) -> None:
    assert (400, text) == get_status_and_text(
        api.send("POST", "/v1/session/nothere0", **parameters)
    )


def test_delete_always_gets_200(api: ApiClient) -> None:
    id_ = api.create()
    for _ in range(2):
        assert (200, "") == get_status_and_text(api.send("DELETE", f"/v1/session/{id_}"))
    assert [] == api.get_json("/v1/session")


def test_delete_of_all_sessions_gets_400(api: ApiClient) -> None:
    assert (400, "Cannot kill all sessions.\n") == get_status_and_text(
        api.send("DELETE", "/v1/session")
    )


def test_job_rejected_by_kubernetes_gets_500_without_reason(api: ApiClient) -> None:
    response = api.send("POST", "/v1/session", name="n-", image=FULL_IMAGE)
    assert 500 == response.status
    text = response.body.decode()
    assert text.startswith("unexpected exception: java.lang.RuntimeException: io.kubernetes")
    assert 'jobs.batch \\"skaha-headless-ada-' in text
    assert not text.endswith("\n")
    assert [] == api.get_json("/v1/session")


def test_session_limit_gets_400(api: ApiClient) -> None:
    api = ApiClient(
        Service(Platform(Settings(millicores=4000, ram=64 * GIB, max_interactive_sessions=0)), "")
    )
    response = api.send("POST", "/v1/session", name="n", image=FULL_IMAGE, type="notebook")
    assert (400, "User ada has reached the maximum of 0 active sessions.\n") == get_status_and_text(
        response
    )


def test_registry_secret_is_checked(api: ApiClient) -> None:
    parameters = Parameters.from_pairs([("name", "n"), ("image", FULL_IMAGE)])
    request = ApiRequest("POST", "/v1/session", parameters, "ada", NOW, registry_secret="?")
    assert 400 == api.service.handle(request).status


def test_private_image_needs_registry_login_that_is_stored(api: ApiClient) -> None:
    image = "images.canfar.net/private/lab:1"
    refused = api.send("POST", "/v1/session", name="n", image=image)
    text = f"No authentication provided for unknown or private image {image}\n"
    assert (400, text) == get_status_and_text(refused)
    parameters = Parameters.from_pairs([("name", "n"), ("image", image)])
    request = ApiRequest("POST", "/v1/session", parameters, "ada", NOW, registry_secret="YTpi")
    assert 200 == api.service.handle(request).status
    assert {"ada": ("a", "b")} == api.service.registry_logins
    assert "YTpi" not in repr(request)
    assert image not in {each["id"] for each in api.get_json("/v1/image")}


def test_user_limit_overrides_platform_limit(api: ApiClient) -> None:
    api.service.platform.limits["ada"] = 1
    api.create(type="notebook")
    refused = api.send("POST", "/v1/session", name="n", image=FULL_IMAGE, type="notebook")
    assert (400, "User ada has reached the maximum of 1 active sessions.\n") == get_status_and_text(
        refused
    )
    assert 1 == api.get_json("/v1/context")["maxInteractiveSessions"]
    api.user = "bob"
    assert 5 == api.get_json("/v1/context")["maxInteractiveSessions"]
    api.create(type="notebook")


def test_desktop_apps_belong_to_their_desktop(api: ApiClient) -> None:
    id_ = api.create(type="desktop")
    response = api.send("POST", f"/v1/session/{id_}/app", image="x/y:1", cores="2")
    appid = response.body.decode().removesuffix("\n")
    app = api.get_json(f"/v1/session/{id_}/app/{appid}")
    assert (id_, appid, "desktop-app", "") == (
        app["id"],
        app["appid"],
        app["type"],
        app["connectURL"],
    )
    assert [app] == api.get_json("/v1/session/whatever/app")
    assert [app] == api.get_json(f"/v1/session/{id_}/app", status="running")
    assert [] == api.get_json(f"/v1/session/{id_}/app", status="Pending")
    assert {"userid", "type", "status", "startTime"} == api.get_json(
        f"/v1/session/{id_}/app", view="all"
    )[0].keys()
    assert 400 == api.send("POST", f"/v1/session/{id_}/app/{appid}").status

    for _ in range(2):
        assert (200, "") == get_status_and_text(
            api.send("DELETE", f"/v1/session/{id_}/app/{appid}")
        )
    expected = f"desktop app with session {id_} and app ID {appid} was not found\n"
    assert (404, expected) == get_status_and_text(api.get(f"/v1/session/{id_}/app/{appid}"))


def test_desktop_app_without_running_desktop_gets_404(api: ApiClient) -> None:
    assert 404 == api.send("POST", "/v1/session/nothere0/app", image="x/y:1").status


def test_statistics_report_requests_and_capacity(api: ApiClient) -> None:
    api.create(cores="2", ram="4", gpus="1")
    stats = api.get_json("/v1/session", view="stats")
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


def test_images_are_listed_by_type(api: ApiClient) -> None:
    everything = api.get_json("/v1/image")
    assert {"id", "types", "digest"} == everything[0].keys()
    cartas = api.get_json("/v1/image", type="carta")
    assert ["images.canfar.net/skaha/carta:latest"] == [image["id"] for image in cartas]
    assert (400, "unknown type: what\n") == get_status_and_text(api.get("/v1/image", type="what"))


def test_context_lists_resource_options(api: ApiClient) -> None:
    context = api.get_json("/v1/context")
    assert [1, 2, 3, 4] == context["cores"]["options"]
    assert {"default", "defaultRequest", "defaultLimit", "options"} == context["memoryGB"].keys()
    assert 5 == context["maxInteractiveSessions"]


def test_repository_lists_hosts(api: ApiClient) -> None:
    assert ["images.canfar.net"] == api.get_json("/v1/repository")


@pytest.mark.parametrize("path", ["/availability", "/capabilities", "/v1/capabilities"])
def test_availability_and_capabilities_are_xml_without_login(path: str) -> None:
    api = ApiClient(user=None)
    response = api.get(path)
    assert 200 == response.status
    assert (response.content_type or "").startswith("text/xml")
    ET.fromstring(response.body)
    assert 200 == api.send("HEAD", path).status


def test_availability_is_true(api: ApiClient) -> None:
    root = ET.fromstring(api.get("/availability").body)
    assert "true" == root.findtext("{http://www.ivoa.net/xml/VOSIAvailability/v1.0}available")


def test_capabilities_contain_session_url(api: ApiClient) -> None:
    found = ET.fromstring(api.get("/capabilities").body).findall("capability")
    urls = {c.attrib["standardID"]: c.findtext("interface/accessURL") for c in found}
    wanted = "http://www.opencadc.org/std/platform#session-1"
    assert "http://here:1/skaha/v1/session" == urls[wanted]


def test_anonymous_request_gets_401_with_challenges() -> None:
    response = ApiClient(user=None).get("/v1/session")
    assert (401, "Unauthorized\n") == get_status_and_text(response)
    schemes = [value.split()[0] for name, value in response.headers if name == "www-authenticate"]
    assert ["Bearer", "ivoa_x509", "ivoa_cookie", "ivoa_bearer"] == schemes


def test_newer_server_answers_anonymous_request_with_400() -> None:
    newer = Service(make_service().platform, "http://here:1", anonymous=400)
    response = ApiClient(newer, user=None).get("/v1/session")
    assert (400, "cannot get group memberships for anonymous\n") == get_status_and_text(response)
    assert () == response.headers


def test_failed_login_reaches_only_public_paths() -> None:
    service = make_service()
    refused = HTTPError(403, "no")
    for path, status in {"/v1/session": 403, "/availability": 200}.items():
        request = ApiRequest("GET", path, Parameters(), None, NOW, login_error=refused)
        assert status == service.handle(request).status


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/session", "GET, POST, DELETE"),
        ("HEAD", "/v1/session", "GET, POST, DELETE"),
        ("POST", "/v1/image", "GET"),
        ("DELETE", "/availability", "GET, HEAD"),
    ],
)
def test_unsupported_method_gets_405(api: ApiClient, method: str, path: str, allowed: str) -> None:
    response = api.send(method, path)
    assert (405, f"unsupported: HTTP {method}\n") == get_status_and_text(response)
    assert ("allow", allowed) in response.headers


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v2/session", "/v1/what", "/v1/session/a/b"])
def test_unknown_path_gets_404_page(api: ApiClient, path: str) -> None:
    response = api.get(path)
    assert 404 == response.status
    assert (response.content_type or "").startswith("text/html")


def test_time_advances_before_request_is_handled(api: ApiClient) -> None:
    id_ = api.create(type="notebook")
    api.now += 4 * DAY
    assert "Failed" == api.get_json(f"/v1/session/{id_}")["status"]
    api.now += DAY
    assert 404 == api.get(f"/v1/session/{id_}").status


def test_finished_headless_session_is_removed_after_an_hour(api: ApiClient) -> None:
    id_ = api.create()
    api.service.platform.ended(id_, NOW, 0)
    api.now += HOUR - 1
    assert "Completed" == api.get_json(f"/v1/session/{id_}")["status"]
    api.now += 1
    assert [] == api.get_json("/v1/session")
    assert None is api.get(f"/v1/session/{id_}", view="logs").file


def test_numbers_and_times_have_server_format() -> None:
    assert ["4.29", "0.12"] == [format_gigabytes(4 * GIB), format_gigabytes(120_000_000)]
    assert ["2", "0.250", "1.500"] == [format_cores(2000), format_cores(250), format_cores(1500)]
    assert "2026-09-21T14:13:20Z" == format_java_time(NOW)
    assert "2026-09-21T14:13Z" == format_java_time(NOW - 20)
