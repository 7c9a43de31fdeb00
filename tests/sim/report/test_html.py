"""The page of a run: complete, self-contained, and safe for names of any text."""

from __future__ import annotations

import base64
import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.commands import call
from support.run_file import BUDGETS, PLANS, POLICIES, run_file

from sim.report.figures import frontiers, pictures
from sim.report.html import page
from sim.results import Measure, RunFile

HOSTILE = "</script><script>alert(1)</script> \"'& --> $x^2$ <img src=x>"


class Seen(HTMLParser):
    """Elements and their attributes, and the text of tables' cells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self._cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element, and begin a cell."""
        self.elements.append((tag, dict(attrs)))
        self._cell = tag in ("td", "th")
        if self._cell:
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        """End a cell."""
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        """Note the text of a cell."""
        if self._cell:
            self.cells[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of a tag."""
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def made() -> RunFile:
    return run_file(seeds=2, n=60)


@pytest.fixture(scope="module")
def budgeted(made: RunFile) -> RunFile:
    """Return a run of one stage, which has all figures."""
    return made.model_copy(update={"stages": made.stages[1:2]})


@pytest.fixture(scope="module")
def html(made: RunFile) -> str:
    return page(made)


def test_nothing_is_loaded_from_anywhere(html: str) -> None:
    seen = Seen(html)
    for tag, attributes in seen.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name)
            if value is not None:
                assert value.startswith(("data:image/svg+xml;base64,", "#")), (tag, name)
    assert not seen.all("link")
    assert "@import" not in html
    assert "url(" not in html
    assert "http:" not in re.sub('base64,[^"]*', "", html)
    for image in seen.all("img"):
        svg = base64.b64decode((image["src"] or "").partition(",")[2]).decode()
        # Names of namespaces look like addresses, but nothing loads them.
        assert set(re.findall(r'(?:href|src)="([^#"][^"]*)"', svg)) == set()
        assert "url(http" not in svg


def test_all_stages_with_their_figures_and_tables(html: str, made: RunFile) -> None:
    seen = Seen(html)
    ids = [attributes["id"] for _, attributes in seen.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"stage-1", "stage-2", "stage-3"} < set(ids)
    assert [a["href"] for a in seen.all("a")] == ["#stage-1", "#stage-2", "#stage-3"]
    drawn = [picture for stage in made.stages for picture in pictures(stage)]
    assert [one.name for one in drawn[4:9]] == ["plane", "regret", "shares", "budget", "propensity"]
    assert [image["alt"] for image in seen.all("img")] == [one.alt for one in drawn]
    for stage in made.stages:
        assert f">{stage.title}</h2>" in html
        assert f">{stage.says}</p>" in html
    (quality,) = {one.metrics["quality"].mean for one in made.stages[1].contenders[:1]}
    assert any(cell.startswith(f"{quality:.4f} ± ") for cell in seen.cells)
    for button in seen.all("button"):
        assert "hidden" in button  # until a script shows it
        assert button["data-copies"] in ids


def test_the_overview_stands_first(html: str, made: RunFile) -> None:
    seen = Seen(html)
    assert html.index('id="overview"') < html.index('id="stage-1"')
    rows = sum(len(stage.contenders) for stage in made.stages)
    overview = html[html.index('id="table-overview"') : html.index('id="stage-1"')]
    assert overview.count("<tr>") == 1 + rows
    assert seen.cells[:2] == ["stage", "policy"]
    assert seen.cells.count(made.stages[0].title) == len(made.stages[0].contenders)
    assert html.count("standard error over seeds") == 1


def test_a_scenario_under_several_budgets_has_one_figure() -> None:
    made = run_file(seeds=1, n=60, policies=POLICIES[:2], plans=[PLANS[0], *BUDGETS])
    assert frontiers(made.stages[:2]) == []
    (drawn,) = frontiers(made.stages)
    assert drawn.title == "drop: 2 budgets"
    figure = drawn.draw()
    left, right = figure.axes
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[-2:] == ["learner", "learner, slow"]
    assert [labels.count(label) for label in ("oracle at each budget", "random (reference)")] == [
        1,
        1,
    ]
    for axis, metric in ((left, "quality"), (right, "difference")):
        lines = [one.lines[0] for one in axis.containers]
        for k, line in enumerate(lines):
            metrics = [stage.contenders[k].metrics for stage in made.stages[1:]]
            assert list(line.get_xdata()) == [one["cost"].mean * 1_000 for one in metrics]
            assert list(line.get_ydata()) == [one[metric].mean for one in metrics]
            assert line.get_linestyle() != "None"
    html = page(made)
    assert html.index(drawn.title) < html.index('id="stage-1"')
    assert [image["alt"] for image in Seen(html).all("img")][0] == drawn.alt
    links = '<li>drop, at $ per 1k: <a href="#stage-2">0.200</a>, <a href="#stage-3">1.20</a>'
    assert links in html


def test_figures_are_small_and_keep_their_text(budgeted: RunFile) -> None:
    (stage,) = budgeted.stages
    named = stage.contenders[0].model_copy(update={"label": "a=0.123456 >  <b"})
    drawn = pictures(stage.model_copy(update={"contenders": [named]}))
    for picture in drawn:
        assert len(picture.save("svg")) < 40_000, picture.name
    svg = drawn[0].save("svg").decode()
    assert ">a=0.123456 &gt;  &lt;b</text>" in svg
    assert not re.search(r'="[^"]*\d\.\d{3}', svg)


def test_figures_are_of_about_one_height(budgeted: RunFile) -> None:
    (stage,) = budgeted.stages
    alone = stage.model_copy(update={"contenders": stage.contenders[:1]})
    heights = [float(one.draw().get_figheight()) for one in pictures(alone)]
    assert max(heights) < 2.0 * min(heights)
    # A narrow figure is not stretched to the page's width.
    assert "{ display: block; max-width: 100%;" in page(budgeted.model_copy(update={"stages": []}))


def test_the_head_says_what_was_run(html: str) -> None:
    assert '<pre id="command">sim replay &#39;a file.parquet&#39; --policy learner</pre>' in html
    assert "<dt>data: digest</dt><dd>0123abcd</dd>" in html
    assert "<dt>versions</dt><dd>banditroute 0.1.0, numpy 2.0</dd>" in html
    assert "<dt>preference</dt><dd>0.7, 0.3, 0</dd>" in html


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(made: RunFile, budgeted: RunFile, html: str) -> None:
    alone = page(RunFile.model_validate_json(budgeted.model_dump_json()))
    assert "<nav" not in alone  # one stage needs no table of contents
    drawn = [re.findall('src="data:[^"]*"', of) for of in (alone, html)]
    assert drawn[0] == drawn[1][4:9]
    plane = pictures(made.stages[0])[0]
    assert plane.save("png") == plane.save("png")


def test_text_of_the_file_is_never_markup(made: RunFile) -> None:
    stage = made.stages[1]
    renamed = stage.model_copy(
        update={
            "title": HOSTILE,
            "says": HOSTILE,
            "changes": [one.model_copy(update={"label": HOSTILE}) for one in stage.changes],
            "models": [one.model_copy(update={"name": HOSTILE}) for one in stage.models],
            "contenders": [
                one.model_copy(
                    update={"label": HOSTILE, "tasks": {HOSTILE: next(iter(one.tasks.values()))}}
                )
                for one in stage.contenders
            ],
        }
    )
    hostile = made.model_copy(
        update={
            "title": HOSTILE,
            "command": [HOSTILE],
            "settings": {HOSTILE: HOSTILE},
            "versions": {HOSTILE: HOSTILE},
            "stages": [renamed],
        }
    )
    html = page(hostile)
    seen = Seen(html)
    assert len(seen.all("script")) == 1
    assert all((image["src"] or "").startswith("data:") for image in seen.all("img"))
    assert HOSTILE in seen.cells
    assert html.count("alert(1)") == html.count("&lt;script&gt;alert(1)&lt;/script&gt;")


def test_models_that_cost_nothing_can_be_drawn(budgeted: RunFile) -> None:
    (stage,) = budgeted.stages
    free = {"cost": 0.0, "cost_se": 0.0}
    first = [[of[0].model_copy(update=free), *of[1:]] for of in (stage.models, stage.frontier)]
    none = Measure(mean=0.0, se=0.0)
    idle = stage.contenders[0].model_copy(
        update={"metrics": {**stage.contenders[0].metrics, "cost": none}}
    )
    for costs in (first, [[one.model_copy(update=free) for one in of[:1]] for of in first]):
        shown = stage.model_copy(
            update={"models": costs[0], "frontier": costs[1], "contenders": [idle]}
        )
        assert pictures(shown)[0].save("svg").startswith(b"<?xml")


def test_a_stage_without_policies_has_no_figures(budgeted: RunFile) -> None:
    alone = budgeted.stages[0].model_copy(update={"contenders": []})
    assert "<img" not in page(budgeted.model_copy(update={"stages": [alone]}))


@pytest.mark.slow
def test_command_writes_a_page_and_pictures(
    budgeted: RunFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out, png = tmp_path / "run.json", tmp_path / "new" / "report.html", tmp_path / "png"
    budgeted.write(run)
    assert call("report", str(run), "--out", str(out), "--png", str(png)) == 0
    assert out.read_text(encoding="utf-8").endswith("</html>\n")
    names = [f"1-{one.name}.png" for one in pictures(budgeted.stages[0])]
    assert sorted(path.name for path in png.iterdir()) == sorted(names)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in png.iterdir())
    assert capsys.readouterr().out.splitlines()[0] == str(out)


def test_command_prints_tables(
    made: RunFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run.json"
    made.write(run)
    assert call("report", str(run), "--tasks") == 0
    shown = capsys.readouterr().out
    assert "drained" in shown
    assert "by task" in shown


def test_wrong_input_is_one_line_and_status_2(
    made: RunFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file, empty = tmp_path / "run.json", tmp_path / "file", tmp_path / "empty.json"
    made.write(run)
    made.model_copy(update={"stages": []}).write(empty)
    file.write_text("")
    for arguments, message in (
        ((str(tmp_path / "absent.json"),), "absent.json: No such file"),
        ((str(file),), f"{file}: not JSON"),
        ((str(empty), "--out", str(file / "x.html")), f"--out: {file / 'x.html'}: "),
        ((str(run), "--png", str(file)), f"--png: {file}"),
    ):
        assert call("report", *arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("absent", "option", "message"),
    [
        (["matplotlib"], "--out", "needs matplotlib"),
        (["jinja2"], "--out", "needs jinja2"),
        (["matplotlib", "jinja2"], "--out", "needs matplotlib and jinja2"),
        (["matplotlib"], "--png", "needs matplotlib"),
    ],
)
def test_without_the_extra_it_says_what_to_install(
    made: RunFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    absent: list[str],
    option: str,
    message: str,
) -> None:
    run = tmp_path / "run.json"
    made.write(run)
    plain = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in absent else plain(name)
    )
    assert call("report", str(run), option, str(tmp_path / "x.html")) == 2
    expected = f"error: {option}: {message}: pip install 'banditroute[report]'\n"
    assert capsys.readouterr().err == expected
    assert call("report", str(run)) == 0


def test_tables_and_pictures_do_not_need_jinja2(budgeted: RunFile, tmp_path: Path) -> None:
    run = tmp_path / "run.json"
    budgeted.write(run)
    code = "import sys; sys.modules['jinja2'] = None; from sim.cli import main; main()"
    for arguments in ([], ["--png", str(tmp_path)]):
        words = [sys.executable, "-c", code, "report", str(run), *arguments]
        subprocess.run(words, check=True, capture_output=True)
