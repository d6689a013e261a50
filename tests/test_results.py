"""Figures on the pages are those of docs/results, and a changed digit is noticed."""

import importlib.util
import json
import re
from argparse import Namespace
from decimal import Decimal
from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks.report import write_report
from data_prep.errors import InputError

ROOT = Path(__file__).parents[1]
# By its path: another package may be called `docs`.
spec = importlib.util.spec_from_file_location("pages_and_results", ROOT / "docs" / "results.py")
results = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results)

PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in results.list_pages()}


@pytest.fixture(scope="module")
def stored():
    return results.read_results()


@pytest.fixture
def small():
    """One table of speeds, and values that sentences quote."""
    return {
        "speed": {
            "commit": "abc1234",
            "values": {"best": Decimal("1.50"), "range": [322, 446], "names": {"a": "8e-6"}},
            "columns": [["network"], ["ms", "{:.1f} ({:.1f})"], ["images/s"]],
            "rows": [["full", [Decimal("1540.26"), 7], 12345], ["half", None, ""]],
        },
        "other": {"values": {"best": Decimal("2.75")}},
    }


SMALL_PAGE = """# Speeds
<!-- results: speed -->

| network | ms | images/s |
|---|---|---|
| full | 1540.3 (7.0) | 12,345 |
| half | *open* | |

<!-- end -->

At best 1.50 s, from 322 to 446 images/s at commit abc1234, Python 3.11, jax 0.10.2; `0.7` is set.
"""


@pytest.mark.parametrize("page", PAGES)
def test_page_shows_only_figures_of_its_results(page, stored):
    assert results.find_problems(PAGES[page], stored) == []


def test_every_result_is_on_a_page_with_its_command_and_commit(stored):
    for name, result in stored.items():
        pattern = rf"<!-- results: {name}[ /]|<!-- quotes: [^>]*\b{name}[ /]"
        texts = [text for text in PAGES.values() if re.search(pattern, text)]
        assert texts, name
        # Long commands are written on two lines.
        text = re.sub(r"(\\\n|\s)+", " ", " ".join(texts))
        for key in ("command", "commit"):
            known = result.get(key, [])
            for value in [known] if isinstance(known, str) else known:
                assert value in text, name


def test_estimates_are_those_of_the_code():
    expected = scaling.to_json(scaling.report(scaling.Work(), 0.4))
    assert (ROOT / "docs" / "results" / "scaling.json").read_text() == expected


def test_page_of_its_own_figures_has_no_problem(small):
    assert results.find_problems(SMALL_PAGE, small) == []
    assert results.fill_tables(SMALL_PAGE, small) == SMALL_PAGE


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("1.50 s", "1.51 s"),
        ("322 to", "323 to"),
        ("446 images", "447 images"),
        ("abc1234", "abc1235"),
        ("12,345", "12,346"),
        ("1540.3", "1540.4"),
        ("# Speeds", "# Speeds of 2.75"),
        ("is set.", "is set.\n\n## Next\n\nIt takes 1.50 s."),
        ("is set.", "is set, or 9 %."),
        ("is set.", "is set.\n\n| speed |\n|---|\n| 0.99 |"),
        ("<!-- end -->", ""),
    ],
)
def test_changed_page_is_noticed(before, after, small):
    assert before in SMALL_PAGE
    assert results.find_problems(SMALL_PAGE.replace(before, after), small)


def test_quoted_file_holds_figures_of_its_section_only(small):
    quoting = "# A\n<!-- quotes: other -->\n\n2.75 ms\n"
    assert results.find_problems(quoting, small) == []
    assert results.find_problems(quoting + "\n# B\n\n2.75 ms\n", small)
    assert results.find_problems("# A\n<!-- quotes: speed/best -->\n\n1.50 s\n", small) == []
    assert results.find_problems("# A\n<!-- quotes: speed/best -->\n\n322 images/s\n", small)


@pytest.mark.parametrize("name", ["none", "speed/none"])
def test_unknown_result_is_an_error(name, small):
    with pytest.raises(InputError, match=f"no {name}"):
        results.find_problems(f"<!-- quotes: {name} -->\n", small)
    with pytest.raises(InputError, match=f"no {name}"):
        results.fill_tables(f"<!-- results: {name} -->\n<!-- end -->\n", small)


def test_edited_result_makes_the_page_out_of_date(small):
    small["speed"]["rows"][0][2] = 12346
    assert results.find_problems(SMALL_PAGE, small)
    assert results.find_problems(results.fill_tables(SMALL_PAGE, small), small) == []


def test_most_changed_digits_of_sentences_are_noticed(stored):
    """A changed digit is missed only if the section's results hold the other number too."""
    changed = missed = 0
    for page in PAGES.values():
        for section in results.split_sections(page):
            if results.find_problems(section, stored) != []:
                continue
            for figure in dict.fromkeys(results.find_figures(section)):
                # Only where the figure is found once in the section is the place of it clear.
                places = [m.start() for m in re.finditer(rf"(?<![\w.,]){figure}(?![\w])", section)]
                if len(places) == 1:
                    for offset in (k for k, c in enumerate(figure) if c.isdigit()):
                        text = _change_digit(section, places[0] + offset)
                        changed += 1
                        missed += results.find_problems(text, stored) == []
    assert changed > 300
    assert missed < 0.05 * changed


def _change_digit(text, place):
    return f"{text[:place]}{(int(text[place]) + 1) % 10}{text[place + 1 :]}"


@pytest.mark.parametrize(
    ("cell", "formats", "expected"),
    [
        (Decimal("66.0"), [], "66.0"),
        (1234567, [], "1,234,567"),
        (Decimal("1.1e-7"), [], "1.1e-7"),
        (Decimal("0.0320"), ["{:.1e}"], "3.2e-2"),
        ([Decimal("62.1"), Decimal("0.4")], ["{} ± {}"], "62.1 ± 0.4"),
        (Decimal("4.71"), ["{} s", "{} s ({} times less)"], "4.71 s"),
        ([Decimal("0.29"), 16], ["{} s", "{} s ({} times less)"], "0.29 s (16 times less)"),
        ([Decimal("-1.25"), "significant"], ["{:+.1f}, {}"], "-1.2, significant"),
        (Decimal("0.4785"), ["{:.1p}"], "47.8"),
        (None, ["{:.1f}"], "*open*"),
        ("", ["{:.1f}"], ""),
        ("in {other[best]} s", [], "in 2.75 s"),
    ],
)
def test_cell_is_printed_by_its_format(cell, formats, expected, small):
    assert results.print_cell(cell, formats, small) == expected


def test_cell_without_a_fitting_format_is_an_error(small):
    with pytest.raises(InputError, match="2 fields"):
        results.print_cell([1, 2], ["{}"], small)


def test_report_of_a_benchmark_is_shown_as_it_is(tmp_path):
    path = tmp_path / "engines.json"
    figures = {"jax": {"ms": 1234.567, "images": 64}, "onnx": {"ms": 0.12345}}
    write_report("engines", Namespace(json=path, batch_size=8), figures)
    page, report = "<!-- results: engines -->\n<!-- end -->\n", json.loads(path.read_text())
    filled = results.fill_tables(page, {"engines": results.read_result(path)})
    assert "| | ms | images |\n" in filled
    assert "| jax | 1,235 | 64 |\n| onnx | 0.123 | |\n" in filled
    for text in ("batch_size 8", report["commit"], report["machine"]["processor"], "jax "):
        assert text in filled
    report["columns"] = [["engine"], ["ms", "{:,.2f}"]]
    path.write_text(json.dumps(report))
    filled = results.fill_tables(page, {"engines": results.read_result(path)})
    assert "| engine | ms |\n|---|---|\n| jax | 1,234.57 |\n| onnx | 0.12 |\n" in filled


def test_result_of_a_run_is_read_as_values(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"plain": {"mean_ap": 0.4781}}))
    table = {"columns": [["mAP"]], "rows": [["{run[plain][mean_ap]:.1p}"]]}
    found = {"run": results.read_result(tmp_path / "run.json"), "table": table}
    assert results.print_table("table", found).endswith("| 47.8 |")


def test_command_fails_for_a_page_that_is_not_up_to_date(tmp_path, capsys):
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "tests" / "paper").mkdir(parents=True)
    (tmp_path / "tests" / "paper" / "paper.toml").write_text("")
    page, file = tmp_path / "README.md", tmp_path / "docs" / "results" / "a.json"
    page.write_text("# A\n<!-- results: a -->\n<!-- end -->\n")
    file.write_text('{"columns": [["speed"]], "rows": [[1.50]]}')
    assert results.main(["--check"], tmp_path) == 1
    assert results.main([], tmp_path) == 0
    assert results.main(["--check"], tmp_path) == 0
    assert "| 1.50 |" in page.read_text()
    file.write_text('{"columns": [["speed"]], "rows": [[1.51]]}')
    assert results.main(["--check"], tmp_path) == 1
    assert "README.md" in capsys.readouterr().err
    assert "| 1.50 |" in page.read_text()
