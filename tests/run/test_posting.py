"""A run's text on a pull request: against a server of our own that speaks as GitHub and GitLab do."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import ConfigError
from harness.run.posting import MARKER, MAX_CHARACTERS, PAGE_SIZE, comment_text, post_comment

PLACES = {
    "github": ("/repos/me/nets/issues/7/comments", "/repos/me/nets/issues/comments/{}", "PATCH"),
    "gitlab": ("/projects/42/merge_requests/7/notes", "/projects/42/merge_requests/7/notes/{}", "PUT"),
}


class FakeForge(BaseHTTPRequestHandler):
    """Keeps comments in a list; takes only the token of the test."""

    def answer(self):
        forge, body = self.server.forge, None
        if length := int(self.headers.get("Content-Length", 0)):
            body = json.loads(self.rfile.read(length))["body"]
        token = self.headers.get("Authorization") if forge == "github" else self.headers.get("PRIVATE-TOKEN")
        comments, comment, edit = PLACES[forge]
        path, _, query = self.path.partition("?")
        self.server.calls.append(self.command)
        if token != ("Bearer secret" if forge == "github" else "secret"):
            return self.send(403, {"message": "no"})
        if (self.command, path) == ("GET", comments):
            page = int(query.rpartition("page=")[2])
            return self.send(200, self.server.comments[(page - 1) * PAGE_SIZE : page * PAGE_SIZE])
        if (self.command, path) == ("POST", comments):
            self.server.comments.append({"id": len(self.server.comments), "body": body})
            return self.send(201, {"id": len(self.server.comments) - 1, "html_url": "https://forge/7"})
        for known in self.server.comments:
            if (self.command, path) == (edit, comment.format(known["id"])):
                known["body"] = body
                return self.send(200, known)
        return self.send(404, {})

    do_GET = do_POST = do_PATCH = do_PUT = answer

    def send(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(params=PLACES)
def forge(request):
    """Return a running server and the variables that CI would set for it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeForge)
    server.forge, server.comments, server.calls = request.param, [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    server.variables = {
        "github": {"GITHUB_API_URL": url, "GITHUB_REPOSITORY": "me/nets", "GITHUB_TOKEN": "secret"},
        "gitlab": {"CI_API_V4_URL": url, "CI_PROJECT_ID": "42", "GITLAB_TOKEN": "secret"},
    }[request.param]
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def run_folder(tmp_path):
    (tmp_path / "report.md").write_text("## All is well\n")
    return tmp_path


def post(forge, text):
    return post_comment(text, forge=forge.forge, number=7, environment=forge.variables)


def test_a_comment_is_posted_and_a_later_run_replaces_it(forge, run_folder):
    forge.comments += [{"id": index, "body": f"by a person, who quotes {MARKER}"} for index in range(PAGE_SIZE + 3)]
    assert post(forge, comment_text(run_folder)) == "https://forge/7"
    assert forge.comments[-1]["body"] == f"{MARKER}\n## All is well\n"
    (run_folder / "report.md").write_text("## Worse\n")
    post(forge, comment_text(run_folder))
    assert [comment["body"] for comment in forge.comments[PAGE_SIZE + 3 :]] == [f"{MARKER}\n## Worse\n"]
    assert all(comment["body"].startswith("by a person") for comment in forge.comments[: PAGE_SIZE + 3])


def test_what_is_missing_or_refused_is_one_line_without_the_token(forge):
    for name in (name for name in forge.variables if "URL" not in name):
        with pytest.raises(ConfigError, match=f"{name} is not set"):
            post_comment("text", forge=forge.forge, number=7, environment={**forge.variables, name: ""})
    token = next(name for name in forge.variables if "TOKEN" in name)
    with pytest.raises(ConfigError, match=f"403 Forbidden; may {token} write") as refused:
        post_comment("text", forge=forge.forge, number=7, environment={**forge.variables, token: "wrong-one"})
    assert "wrong-one" not in str(refused.value)
    assert forge.comments == []


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"GITHUB_API_URL=file:///etc: expected an address"):
        post_comment(
            "text",
            forge="github",
            number=7,
            environment={"GITHUB_API_URL": "file:///etc", "GITHUB_TOKEN": "t", "GITHUB_REPOSITORY": "me/nets"},
        )


def test_a_text_that_is_too_long_is_cut_at_a_line_and_says_so(run_folder):
    (run_folder / "report.md").write_text("a line of text\n" * 6_000)
    text = comment_text(run_folder)
    assert MAX_CHARACTERS < len(text) + 20 < MAX_CHARACTERS + 200
    assert text.endswith("a line of text\n\nCut here: the whole is in report.md of the run.\n")


def test_the_command_prints_or_names_what_is_missing(run_folder, monkeypatch):
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    call = CliRunner().invoke
    assert call(app, ["comment", str(run_folder)]).output == f"{MARKER}\n## All is well\n"
    for words, says in (
        (["--post=github"], "--number: give"),
        (["--post=github", "--number=7"], "GITHUB_TOKEN is not set"),
        (["--post=gitea", "--number=7"], "choose from github, gitlab"),
    ):
        end = call(app, ["comment", str(run_folder), *words])
        assert (end.exit_code, says in end.output) == (2, True), end.output
    assert call(app, ["comment", str(run_folder / "absent")]).exit_code == 2
