"""Rows: which format they have, what is to be learnt from them, and where a file is wrong."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from service.errors import DatasetUnreadable
from service.rows import Example, Format, count_rows, detect, example, read_file

Row = dict[str, Any]


def user(content: str) -> Row:
    return {"role": "user", "content": content}


def assistant(content: str) -> Row:
    return {"role": "assistant", "content": content}


def system(content: str) -> Row:
    return {"role": "system", "content": content}


CASES: list[tuple[Row, Format, Example]] = [
    ({"text": "prose"}, "text", Example(None, None, "prose")),
    (
        {"messages": [system("be kind"), user("a?"), assistant("b."), user("c?"), assistant("d.")]},
        "messages",
        Example(
            [system("be kind"), user("a?"), assistant("b."), user("c?")], [assistant("d.")], None
        ),
    ),
    (
        {"messages": [user("a?"), assistant("b."), user("and c?")]},
        "messages",
        Example([user("a?")], [assistant("b.")], None),
    ),
    (
        {
            "messages": [
                user([{"type": "text", "text": "a"}, {"type": "text", "text": "?"}]),  # type: ignore[arg-type]
                assistant("b."),
            ]
        },
        "messages",
        Example([user("a?")], [assistant("b.")], None),
    ),
    ({"prompt": "2+2=", "completion": "4"}, "prompt_completion", Example("2+2=", "4", None)),
    ({"prompt": "", "completion": "4"}, "prompt_completion", Example("", "4", None)),
    (
        {"prompt": [user("a?")], "completion": [assistant("b.")]},
        "prompt_completion",
        Example([user("a?")], [assistant("b.")], None),
    ),
    (
        {"id": 1, "system_prompt": "", "question": "a?", "response": "b."},
        "prompt_completion",
        Example([user("a?")], [assistant("b.")], None),
    ),
    (
        {"system_prompt": "be kind", "question": "a?", "response": "b."},
        "prompt_completion",
        Example([system("be kind"), user("a?")], [assistant("b.")], None),
    ),
    (
        {"instruction": "add", "input": "2 2", "output": "4"},
        "alpaca",
        Example([user("add\n\n2 2")], [assistant("4")], None),
    ),
    (
        {"instruction": "add", "output": "4"},
        "alpaca",
        Example([user("add")], [assistant("4")], None),
    ),
    (
        {
            "input": {"messages": [system("be kind"), user("a?")]},
            "preferred_output": [assistant("good")],
            "non_preferred_output": [assistant("bad")],
        },
        "preference",
        Example([system("be kind"), user("a?")], [assistant("good")], None),
    ),
    (
        {"prompt": "a?", "chosen": "good", "rejected": "bad"},
        "preference",
        Example("a?", "good", None),
    ),
    (
        {"prompt": "a?", "chosen": [assistant("good")], "rejected": [assistant("bad")]},
        "preference",
        Example([user("a?")], [assistant("good")], None),
    ),
    (
        {"chosen": [user("a?"), assistant("good")], "rejected": [user("a?"), assistant("bad")]},
        "preference",
        Example([user("a?")], [assistant("good")], None),
    ),
]


@pytest.mark.parametrize(("row", "format_", "expected"), CASES)
def test_formats_are_detected_and_read(row: Row, format_: Format, expected: Example) -> None:
    assert detect(row) == format_
    assert example(row, format_, line=1) == expected


@pytest.mark.parametrize(
    ("row", "format_", "said"),
    [
        ({"text": " \n"}, "text", "`text` is empty"),
        ({"text": 7}, "text", "`text` is not text"),
        ({"text": None}, "text", "`text` is not text"),
        ({"text": "\ud800"}, "text", "half a character"),
        ({"messages": []}, "messages", "not a list of messages"),
        ({"messages": [user("a?")]}, "messages", "no assistant turn"),
        ({"messages": [assistant("a.")]}, "messages", "nothing is said before"),
        ({"messages": [user("a?"), assistant("")]}, "messages", "answer is empty"),
        ({"messages": [{"content": "a"}]}, "messages", "no role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages", "content` is not text"),
        ({"messages": [user([{"type": "image"}])]}, "messages", "not text"),  # type: ignore[arg-type]
        ({"prompt": "a", "completion": ""}, "prompt_completion", "`completion` is empty"),
        ({"prompt": None, "completion": "b"}, "prompt_completion", "`prompt` is not text"),
        ({"instruction": "", "output": "b"}, "alpaca", "`instruction` is empty"),
        ({"preferred_output": [assistant("b")]}, "preference", "input.messages"),
        ({"chosen": "good", "rejected": "bad"}, "preference", "prompt"),
    ],
)
def test_a_row_that_is_not_of_its_format(row: Row, format_: Format, said: str) -> None:
    with pytest.raises(DatasetUnreadable, match="line 12") as caught:
        example(row, format_, line=12)
    assert said in caught.value.message
    assert caught.value.details["line"] == 12
    assert caught.value.param == "dataset.path"


def test_unknown_columns_are_named() -> None:
    with pytest.raises(DatasetUnreadable, match="apples, pears") as caught:
        detect({"pears": 1, "apples": 2})
    assert caught.value.param == "dataset.format"


def rows_of(path: Path, **options: Any) -> list[tuple[int, Row]]:
    return list(read_file(path, **options))


def test_jsonl_counts_lines_and_skips_blank_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}')
    assert rows_of(path) == [(1, {"text": "a"}), (3, {"text": "b"})]


def test_a_limit_never_cuts_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    assert [line for line, _ in rows_of(path, max_bytes=27)] == [1]
    assert [line for line, _ in rows_of(path, max_bytes=28)] == [1, 2]
    assert rows_of(path, max_bytes=5) == []


def test_csv_with_quoted_line_feeds(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('prompt,completion\n"a\nb",c\nd,"e, f"\n')
    assert rows_of(path) == [
        (3, {"prompt": "a\nb", "completion": "c"}),
        (4, {"prompt": "d", "completion": "e, f"}),
    ]
    # The limit falls between the lines of a quoted cell.
    assert rows_of(path, max_bytes=22) == []


@pytest.mark.parametrize("text", ["a,b\n1\n", "a,b\n1,2,3\n", 'a,b\n"1,2\n'])
def test_csv_that_is_ragged_or_torn(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DatasetUnreadable, match="line 2"):
        rows_of(path)


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [{"messages": [user(f"{i}?"), assistant(f"{i}.")]} for i in range(2500)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert rows_of(path) == list(enumerate(rows, start=1))
    assert len(rows_of(path, max_bytes=1_000_000)) == 1000
    assert count_rows(path) == 2500


def test_txt_is_a_row_per_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n\n two\n")
    assert [line for line, _ in rows_of(path)] == [1, 3]
    assert count_rows(path) is None


def test_formats_do_not_depend_on_the_file(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}?", "completion": f"{i}."} for i in range(5)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.csv").write_text(
        "prompt,completion\n" + "".join(f"{row['prompt']},{row['completion']}\n" for row in rows)
    )
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        assert [row for _, row in rows_of(tmp_path / name)] == rows


def test_the_orca_sample(shared_data: Path) -> None:
    found = rows_of(shared_data / "orca-sample.jsonl")
    examples = [example(row, detect(row), line=line) for line, row in found]
    assert len(examples) == 284
    assert {detect(row) for _, row in found} == {"preference"}
    first = examples[0]
    assert isinstance(first.prompt, list)
    assert isinstance(first.completion, list)
    assert [turn["role"] for turn in first.prompt] == ["system", "user"]
    assert first.completion[0]["content"].startswith("Step 1: Identify the names")


def test_advbench_as_csv(shared_data: Path) -> None:
    """Its columns are none of ours, and no row of it is lost."""
    found = rows_of(shared_data / "advbench.csv")
    assert len(found) == 521
    with pytest.raises(DatasetUnreadable, match="goal, target"):
        detect(found[0][1])
