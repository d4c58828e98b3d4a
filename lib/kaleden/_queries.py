"""Questions about the user's sessions as a whole, and about the platform: one request each."""

from __future__ import annotations

import logging

from kaleden import _wire
from kaleden._client import Client
from kaleden._wire import Availability, Context, Image, Listing, SessionInfo, Stats

logger = logging.getLogger("kaleden")


class Queries(Client):
    """The methods of an `AsyncSession` that return one thing, and raise if they cannot."""

    async def fetch(
        self, kind: str | None = None, status: str | None = None, view: str | None = None
    ) -> list[SessionInfo]:
        """List the sessions of the user, all in one request.

        Args:
            kind: only this kind, such as ``"headless"``. Applications of desktops are listed only
                if asked for with ``"desktop-app"``.
            status: only this status, such as ``"Running"``.
            view: ``"interactive"`` leaves out headless sessions; ``"all"`` lists everybody's, with
                no more than user, kind, status and start time of each.

        Returns:
            The sessions in the server's order; empty if there are none.

        Raises:
            InvalidRequest: an argument is none that the server knows.
            RequestError: the request failed.

        Cancellation:
            The request is given up; it changes nothing on the server.
        """
        request = _wire.build_list(kind, status, view)
        return _sessions(await self._ask("fetch", request, _wire.parse_list))

    async def apps(self, session: str | SessionInfo) -> list[SessionInfo]:
        """List the applications that run in a desktop session.

        Args:
            session: the desktop.

        Returns:
            One `SessionInfo` per application, each with its ``app_id``.

        Raises:
            InvalidRequest: that cannot be a session's id.
            RequestError: the request failed.

        Cancellation:
            The request is given up; it changes nothing on the server.
        """
        key = session.id if isinstance(session, SessionInfo) else session
        listing = await self._ask("apps", _wire.build_apps(key), _wire.parse_list)
        # The server lists the applications of all the user's desktops, whichever was asked for.
        return [app for app in _sessions(listing) if app.id == key]

    async def stats(self) -> Stats:
        """Read how much of the platform's cores, memory and GPUs is requested.

        Raises:
            RequestError: the request failed; of kind ``unavailable`` if the server has no metrics
                now.

        Cancellation:
            The request is given up; it changes nothing on the server.
        """
        return await self._ask("stats", _wire.build_stats(), _wire.parse_stats)

    async def images(self, kind: str | None = None) -> list[Image]:
        """List the images that sessions can be launched from.

        Args:
            kind: only those for this kind of session.

        Raises:
            InvalidRequest: the server knows no such kind.
            RequestError: the request failed.

        Cancellation:
            The request is given up; it changes nothing on the server.
        """
        return list(await self._ask("images", _wire.build_images(kind), _wire.parse_images))

    async def context(self) -> Context:
        """Read what a session may ask for: the choices of cores, memory and GPUs, and the limits.

        Raises:
            RequestError: the request failed.

        Cancellation:
            The request is given up; it changes nothing on the server.
        """
        return await self._ask("context", _wire.build_context(), _wire.parse_context)

    async def repositories(self) -> list[str]:
        """List the registries whose images the server accepts, by host name.

        Raises:
            RequestError: the request failed.

        Cancellation:
            The request is given up; it changes nothing on the server.
        """
        request = _wire.build_repositories()
        return list(await self._ask("repositories", request, _wire.parse_repositories))

    async def availability(self) -> Availability:
        """Read whether the server says of itself that it is available; no credentials are needed.

        Raises:
            RequestError: the request failed.

        Cancellation:
            The request is given up; it changes nothing on the server.
        """
        request = _wire.build_availability()
        return await self._ask("availability", request, _wire.parse_availability)


def _sessions(listing: Listing) -> list[SessionInfo]:
    if listing.malformed:
        logger.warning("the list has elements that are no sessions: %r", listing.malformed[:3])

    return list(listing.sessions)
