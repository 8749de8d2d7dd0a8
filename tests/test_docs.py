"""What README, CONTRIBUTING and docs/ say of files, headings and options is so."""

import re
from pathlib import Path

import pytest
import typer

from harness import cli

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|^    .*$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
BARE = re.compile(r"(?<![\w/(\[`])(?:docs|examples|benchmarks)/[\w/.-]+\.(?:md|html|py)")
NAMED = re.compile(r"`((?:harness|docs|tests|benchmarks|suites|models|examples)/[\w/.-]+)`")
WRITTEN = ("models/cache/",)  # by a run
PAGE_IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def commands_of(group, prefix="harness"):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, f"{prefix} {name}")
        else:
            flags = (text for option in command.params for text in (*option.opts, *option.secondary_opts))
            yield f"{prefix} {name}", set(flags)


def harness_commands():
    """Return "harness NAME" -> the flags it takes."""
    return dict(commands_of(typer.main.get_command(cli.app)))


def suites_flags():
    from harness.options.table import all_rows

    return {flag for row in all_rows() for flag in (row.flag, row.own_flag)}


def flags_of(words):
    return set(re.findall(r"(?<=\s)--?[a-z][\w-]*", words))


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_every_link_leads_to_a_file_and_a_heading(page):
    text = CODE.sub(lambda code: code[0] if code[0].startswith("`") and "](" not in code[0] else "", page.read_text())
    for link in LINK.finditer(text):
        target, _, heading = link["target"].partition("#")
        if target.startswith(("http://", "https://")):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.name}: {link[0]}"
        if heading:
            assert heading in anchors(file), f"{page.name}: {link[0]}"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_a_page_or_script_is_named_by_a_link(page):
    assert BARE.findall(CODE.sub("", LINK.sub("", page.read_text()))) == []


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_every_file_named_exists(page):
    named = NAMED.findall(page.read_text())
    assert [name for name in named if not (ROOT / name).exists() and name not in WRITTEN] == []


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_every_flag_named_exists(page):
    """Flags of the suites and of `harness`; those of pytest and of other programs are named here."""
    others = {"--help", "--no-deps", "--junit-xml", "--benchmark-json", "--no-"}
    others |= {"--version", "--install-completion"}  # of `harness` itself
    others |= {"--build-arg"}  # of Docker
    known = suites_flags().union(*harness_commands().values())
    flags = set(re.findall(r"`(--[a-z][\w-]+)", page.read_text()))
    assert flags - known - others == set()


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_every_command_line_of_harness_is_one_it_takes(page):
    from harness.options.table import all_rows

    commands = harness_commands()
    for name in (
        "harness ab",
        "harness calibrate",
        "harness time",
        "harness export",
    ):  # they take the options of a run too
        commands[name] |= {row.flag for row in all_rows()}
    for line in re.findall(r"^ {4}(harness .*)$", page.read_text(), re.MULTILINE):
        words = line.partition("#")[0]
        name = next((name for name in commands if words.startswith(name)), None)
        assert name or re.match(r"harness baseline show \|", words), line
        if name == "harness run":  # hands its arguments on to pytest
            assert flags_of(words) <= suites_flags() | {"-m", "-k", "-x", "-q", "-h"}, line
        elif name:
            assert flags_of(words) <= commands[name], line


def test_the_report_page_lists_every_outcome_with_its_meaning():
    from harness.report.standing import Standing

    page = (ROOT / "docs" / "report.md").read_text()
    for standing in Standing:
        assert f"| {standing.word} | {standing.meaning}" in page
