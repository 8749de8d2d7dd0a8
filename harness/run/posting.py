"""A run's text on its pull or merge request: GitHub's and GitLab's API by the standard library, with CI's own token."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from harness.errors import ConfigError, DataError

MARKER = "<!-- nn-engine-harness -->"  # by which a later run finds its own comment
MAX_CHARACTERS = 65_000  # GitHub takes 65,536
PAGE_SIZE = 100
MAX_PAGES = 10
TIME_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forge:
    """How one host of repositories speaks: where comments of a request are, and how a token is sent."""

    url_variable: str
    default_url: str
    project_variable: str
    token_variable: str
    token_header: str
    token_prefix: str
    comments: str  # path of a request's comments, with {project} and {number}
    comment: str  # path of one comment, with {id} too
    edit_method: str


FORGES = {
    "github": Forge(
        url_variable="GITHUB_API_URL",
        default_url="https://api.github.com",
        project_variable="GITHUB_REPOSITORY",
        token_variable="GITHUB_TOKEN",
        token_header="Authorization",
        token_prefix="Bearer ",
        comments="/repos/{project}/issues/{number}/comments",
        comment="/repos/{project}/issues/comments/{id}",
        edit_method="PATCH",
    ),
    "gitlab": Forge(
        url_variable="CI_API_V4_URL",
        default_url="https://gitlab.com/api/v4",
        project_variable="CI_PROJECT_ID",
        token_variable="GITLAB_TOKEN",
        token_header="PRIVATE-TOKEN",
        token_prefix="",
        comments="/projects/{project}/merge_requests/{number}/notes",
        comment="/projects/{project}/merge_requests/{number}/notes/{id}",
        edit_method="PUT",
    ),
}


def comment_text(folder: Path) -> str:
    """Return the text of a run for its request: report.md, cut at a line where it is too long to post.

    Raises: DataError for a folder without it.
    """
    try:
        text = (folder / "report.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{folder / 'report.md'}: cannot be read; `harness report` writes it again") from error
    if len(text) > MAX_CHARACTERS:
        text = text[: text.rfind("\n", 0, MAX_CHARACTERS)] + "\n\nCut here: the whole is in report.md of the run.\n"
    return f"{MARKER}\n{text}"


def post_comment(text: str, *, forge: str, number: int, environment: Mapping[str, str] | None = None) -> str:
    """Post a text on a request, or put it in place of that of an earlier run, and return its address.

    `number`: of the pull or merge request; the rest stands in CI's own variables.
    Raises: ConfigError for an unknown forge, a variable that is not set, or an answer that is an error.
    """
    if forge not in FORGES:
        raise ConfigError(f"--post={forge}: choose from {', '.join(FORGES)}")
    api = _Api(FORGES[forge], os.environ if environment is None else environment, number)
    earlier = api.find_comment()
    posted = api.write(text, earlier)
    return str(posted.get("html_url") or posted.get("web_url") or f"comment {posted.get('id')}")


class _Api:
    def __init__(self, forge: Forge, environment: Mapping[str, str], number: int) -> None:
        self._forge = forge
        for name in (forge.token_variable, forge.project_variable):
            if not environment.get(name):
                raise ConfigError(f"{name} is not set; CI sets it, or pass it to the job")
        self._token = forge.token_prefix + environment[forge.token_variable]
        self._url = environment.get(forge.url_variable) or forge.default_url
        if urlsplit(self._url).scheme not in ("http", "https"):
            raise ConfigError(f"{forge.url_variable}={self._url}: expected an address that begins with https://")
        self._names = {"project": quote(environment[forge.project_variable], safe="/"), "number": number}

    def find_comment(self) -> int | None:
        """Return the id of our comment on the request, None where there is none."""
        for page in range(1, MAX_PAGES + 1):
            found = self._call("GET", f"{self._comments}?per_page={PAGE_SIZE}&page={page}")
            for comment in found:
                if str(comment.get("body", "")).startswith(MARKER):
                    return int(comment["id"])
            if len(found) < PAGE_SIZE:
                break
        return None

    def write(self, text: str, earlier: int | None) -> dict[str, Any]:
        """Write a new comment, or the text of an earlier one."""
        if earlier is None:
            answer = self._call("POST", self._comments, {"body": text})
        else:
            path = self._forge.comment.format(**self._names, id=earlier)
            answer = self._call(self._forge.edit_method, path, {"body": text})
        return dict(answer)

    @property
    def _comments(self) -> str:
        return self._forge.comments.format(**self._names)

    def _call(self, method: str, path: str, body: dict[str, str] | None = None) -> Any:
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={self._forge.token_header: self._token, "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIME_LIMIT_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ConfigError(
                f"{method} {self._url}{path}: {error.code} {error.reason}; may {self._forge.token_variable} write "
                "comments on this project?"
            ) from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"{method} {self._url}{path}: {error}") from error
