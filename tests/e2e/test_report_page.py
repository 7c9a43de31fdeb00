"""The page of a run in a real browser: it opens from disk and draws without a complaint."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from matplotlib import image
from support.run_file import BUDGETS, PLANS, POLICIES, run_file

from sim.report.html import page

pytestmark = pytest.mark.slow

SIZES = {"wide": (1280, 3000), "narrow": (500, 6000)}


@pytest.fixture(scope="module")
def chromium() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path, "no chromium on the PATH: apt-get install chromium"
    return path


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    many = [*POLICIES, *((f"policy-with-a-long-name:number={k}", 0.1 * k) for k in range(5))]
    made = run_file(seeds=2, n=200, policies=many, plans=[*PLANS, *BUDGETS])
    path.write_text(page(made), encoding="utf-8")
    return path


def run(chromium: str, profile: Path, *options: str) -> tuple[str, str]:
    """Return what the browser prints, and its complaints about the page."""
    done = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            # The page needs no network: do not try any.
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            "--v=0",
            f"--user-data-dir={profile}",
            "--virtual-time-budget=5000",
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(complaints)


def test_a_browser_shows_tables_and_lets_them_be_copied(
    chromium: str, opened: Path, tmp_path: Path
) -> None:
    # The page itself counts what it shows; a broken script would leave the buttons hidden.
    html = opened.read_text(encoding="utf-8")
    probe = tmp_path / "probe.html"
    probe.write_text(
        html.replace(
            "</body>",
            """<script>
            const images = [...document.images];
            Promise.all(images.map((one) => one.decode())).then(() => {
              document.body.dataset.drawn = images.filter((one) => one.naturalWidth > 300).length;
              document.body.dataset.wide =
                document.documentElement.scrollWidth > document.documentElement.clientWidth;
              document.body.dataset.tsv = rowsOf(document.querySelector("main table[id^=table-1]"));
            });
            </script></body>""",
        ),
        encoding="utf-8",
    )
    dom, complaints = run(chromium, tmp_path / "profile", "--dump-dom", f"file://{probe}")
    assert complaints == ""
    figures = html.count("<img ")
    assert figures == 13 + 2 * 5 + 1
    assert f'data-drawn="{figures}"' in dom
    assert 'data-wide="false"' in dom
    tables = dom.count("<table ")
    assert tables == html.count("<table ") > 5 * 5
    assert dom.count('data-copies="table-') == tables
    assert not re.search(r"<button[^>]*hidden", dom)
    heading, first, *_ = re.search(r'data-tsv="([^"]*)"', dom)[1].split("\n")
    assert heading.startswith("policy\tquality\tquality s.e.\t$ per 1k\t$ per 1k s.e.\t")
    assert len(first.split("\t")) == len(heading.split("\t"))
    assert all(re.fullmatch(r"[-+]?[\d.]+", cell) for cell in first.split("\t")[1:])


@pytest.mark.parametrize("size", SIZES)
def test_a_screenshot_is_not_blank(chromium: str, opened: Path, tmp_path: Path, size: str) -> None:
    width, height = SIZES[size]
    shot = tmp_path / "page.png"
    _, complaints = run(
        chromium,
        tmp_path / "profile",
        f"--window-size={width},{height}",
        f"--screenshot={shot}",
        f"file://{opened}",
    )
    assert complaints == ""
    pixels = image.imread(shot)[:, :, :3]
    assert pixels.shape == (height, width, 3)
    for part in range(4):
        strip = pixels[part * height // 4 : (part + 1) * height // 4]
        dark = (strip.max(axis=2) < 0.5).mean()
        assert 0.001 < dark < 0.5, part
    # The colours of at least three policies.
    for colour in ((0, 114, 178), (230, 159, 0), (0, 158, 115)):
        near = (abs(pixels * 255 - colour) < 3).all(axis=2)
        assert near.sum() > 100, colour


def test_it_prints(chromium: str, opened: Path, tmp_path: Path) -> None:
    paper = tmp_path / "page.pdf"
    run(chromium, tmp_path / "profile", f"--print-to-pdf={paper}", f"file://{opened}")
    assert paper.read_bytes().startswith(b"%PDF")
    assert paper.stat().st_size > 50_000
