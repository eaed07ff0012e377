"""Records in arrays: equal to a tuple of records in all that is asked of them, but for memory."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from memory_helpers import peak_of

from wsss.data.index import Index, read_index, read_masks, write_index, write_masks
from wsss.data.listing import Entries, Entry
from wsss.data.records import ImageRecord, Records, Sizes
from wsss.errors import UserError
from wsss.runtime.lazy import Made
from wsss.runtime.names import NameMap, Names

CLASSES = ("zebra", "ant", "tram, red", "ölig")
# In no order; of other scripts and beyond 16 bits; with half of a character; one within another.
NAMES = ["b", "a", "é", "zz", "a-1", "\U0001f600", "\uffee", "\udc80", "", "ab", "B", "Ⅷ"]
MOST_BYTES = 200


def records_of(names: list[str], seed: int = 0) -> tuple[ImageRecord, ...]:
    rng = np.random.default_rng(seed)
    sets = [("train",), ("train", "train_aug"), ("val",), ()]
    return tuple(
        ImageRecord(
            name,
            sets[int(rng.integers(len(sets)))],
            tuple(rng.permutation(CLASSES)[: int(rng.integers(4))].tolist()),
            *rng.integers(1, 10**9, 2).tolist(),
            f"images/{name}.png",
        )
        for name in names
    )


def pictures(count: int) -> Records:
    return Records(records_of([f"p{number:06d}" for number in range(count)]))


def test_records_are_a_tuple_to_whoever_looks() -> None:
    plain = records_of(NAMES)
    records = Records(plain)
    assert len(records) == len(plain) and list(records) == list(plain)
    assert records == plain and plain == records and records == Records(plain)
    assert records != plain[:-1] and records != Records(reversed(plain)) and records != "records"
    for place in range(-len(plain), len(plain)):
        assert records[place] == plain[place]
    for place in (len(plain), -len(plain) - 1):
        with pytest.raises(IndexError):
            records[place]
    for part in (slice(None), slice(3, 7), slice(None, None, -2), slice(9, 2), slice(-3, 99)):
        assert records[part] == plain[part] and isinstance(records[part], Records)
    assert plain[4] in records and ImageRecord("a", (), (), 1, 1, "a.png") not in records
    assert records.index(plain[5]) == 5
    assert pickle.loads(pickle.dumps(records)) == plain
    assert Records() == () and not Records() and list(Records()[:1]) == []
    assert Records(plain).sizes().tolist() == [[r.height, r.width] for r in plain]
    assert Records().sizes().shape == (0, 2)


def test_records_are_equal_one_by_one() -> None:
    one, other = (ImageRecord(name, ("train",), (), 4, 3, "x.png") for name in "ab")
    assert Records([one, other]) == Records([one, other])
    for different in ([one, one], [one], [one, other, one], []):
        assert Records([one, other]) != Records(different)


def test_chosen_records_are_those_that_a_filter_gives() -> None:
    plain = records_of([*NAMES, *map(str, range(200))], seed=1)
    records = Records(plain)
    assert records.by_name() == sorted(plain, key=lambda record: record.name)
    assert records.take(records.tagged) == tuple(r for r in plain if r.tags)
    wanted = {"train_aug", "val"}
    assert records.take(records.in_sets(wanted)) == tuple(r for r in plain if wanted & set(r.sets))
    assert records.sets == {"train", "train_aug", "val"}
    assert records[:0].sets == frozenset() and len(records[:0].in_sets(("val",))) == 0
    some = records.take(np.array([7, 3, 3, 0]))
    assert some == [plain[place] for place in (7, 3, 3, 0)]
    some.append(plain[1])
    assert some[-1] == plain[1] and len(records) == len(plain)
    sizes = Sizes(records)
    assert all(sizes[r.name] == (r.height, r.width) for r in plain) and "none" not in sizes


def test_multi_hot_is_the_naive_table() -> None:
    plain = records_of([f"{number}" for number in range(50)], seed=2)
    expected = np.zeros((50, len(CLASSES)), np.float32)
    for row, record in enumerate(plain):
        for tag in record.tags:
            expected[row, CLASSES.index(tag)] = 1
    np.testing.assert_array_equal(Index(CLASSES, plain).multi_hot(), expected)
    assert Index(CLASSES, ()).multi_hot().shape == (0, len(CLASSES))
    with pytest.raises(KeyError):
        Index(CLASSES[1:], plain).multi_hot()


@pytest.mark.parametrize("names", [NAMES, sorted(NAMES), [*NAMES, "a", "b", "a"], []])
def test_names_are_found_where_they_first_stand(names: list[str]) -> None:
    held = Names(names)
    assert held == names and list(held) == names
    assert held.ascending == (names == sorted(set(names)))
    for name in [*NAMES, *reversed(NAMES), "c", "aa", "\U0001f601"]:
        assert held.position(name) == (names.index(name) if name in names else None)
        assert (name in held) == (name in names)
    assert [names[place] for place in held.order()] == sorted(names)
    assert held[::-1] == names[::-1]
    assert held.take(held.last_of_each()) == sorted(set(names))
    in_order = held.in_order()
    assert in_order == sorted(names) and in_order.ascending == (len(set(names)) == len(names))
    assert held != [1] * len(names) or not names


def test_a_map_of_names_is_a_sorted_dict() -> None:
    pairs = [("b", "1"), ("a", "2"), ("b", "3"), ("c", ""), ("a", "4")]
    for given in (pairs, sorted(dict(pairs).items()), []):
        found = NameMap(given)
        assert found == dict(given) and list(found.items()) == sorted(dict(given).items())
        assert found.get("d") is None and pickle.loads(pickle.dumps(found)) == found


def test_entries_are_a_list() -> None:
    common = {"file": "labels.csv", "tags_file": "tags.csv"}
    plain = [
        Entry("b", "b.png", ("train",), ("ant", "zebra"), line=2, **common),
        Entry("a", "a.png", ("val",), (), line=9, size=(5, 4), may_be_untagged=True, **common),
    ]
    entries = Entries(plain)
    assert list(entries) == plain and entries[-1] == plain[1] and list(entries[1:]) == plain[1:]


def test_what_is_made_when_asked_for_is_a_list() -> None:
    made: list[int] = []
    doubled = Made(lambda item: (made.append(item), 2 * item)[1], range(10))
    assert made == [] and doubled[3] == 6 and made == [3]
    assert list(doubled[2:8:3]) == [4, 10] and len(doubled) == 10
    with pytest.raises(IndexError, match="its own"):
        list(Made(lambda item: [][item] if item < 0 else _fails(), range(3)))


def _fails() -> int:
    raise IndexError("its own, which is not the end of the list")


def test_a_picture_takes_few_bytes() -> None:
    count = 10_000
    records, held, _ = peak_of(lambda: pictures(count))
    letters = sum(len(record.name) + len(record.path) for record in records)
    assert (held - letters) / count < MOST_BYTES
    plain, as_objects, _ = peak_of(lambda: tuple(records))
    assert as_objects > 3 * held and len(plain) == count


def test_reading_takes_no_more_than_the_list(tmp_path: Path) -> None:
    count = 10_000
    records = pictures(count)
    write_index(Index(CLASSES, records), tmp_path / "index.csv")
    write_masks({name: f"masks/{name}.png" for name in records.names}, tmp_path / "masks.csv")
    read_index(tmp_path / "index.csv")  # what is imported and compiled
    letters = len(records[0].name) + len(records[0].path)
    index, _, most = peak_of(lambda: read_index(tmp_path / "index.csv"))
    assert index == Index(CLASSES, records)
    # A piece of the file is held for a moment, whatever its length.
    assert (most - 3e5) / count - letters < MOST_BYTES
    masks, _, most = peak_of(lambda: read_masks(tmp_path / "masks.csv"))
    assert len(masks) == count and masks["p000007"] == "masks/p000007.png"
    assert (most - 3e5) / count - letters < MOST_BYTES


def test_the_training_set_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of how many names the characters are copied at a time, whatever their number.
    monkeypatch.setattr("wsss.runtime.names._PART", 64)
    trained = (
        ImageRecord(f"p{number:06d}", ("train",), ("ant",), 4, 3, f"images/p{number:06d}.png")
        for number in range(10_000)
    )
    index = Index(CLASSES, Records(trained))
    found, held, most = peak_of(index.training_set)
    assert found == index
    assert most < 1.9 * held


HEAD = "name,sets,tags,width,height,path\n"


@pytest.mark.parametrize(
    ("names", "lines"),
    [
        ("aab", "line 2 and line 3"),
        ("abcb", "line 3 and line 5"),
        ("bacab", "line 3 and line 5"),
        ("cbac", "line 2 and line 5"),
    ],
)
def test_a_picture_that_stands_twice_is_said_with_both_lines(
    tmp_path: Path, names: str, lines: str
) -> None:
    write_index(Index(CLASSES, ()), tmp_path / "index.csv")
    rows = [f"{name},train,,4,3,{name}.png\n" for name in names]
    # What is wrong further down is not what is said.
    (tmp_path / "index.csv").write_text(HEAD + "".join(rows) + "z,train,yak,4,3,z.png\n")
    with pytest.raises(UserError, match="stands twice") as caught:
        read_index(tmp_path / "index.csv")
    assert str(caught.value.where).endswith(lines)


def test_an_index_in_any_order_is_sorted(tmp_path: Path) -> None:
    write_index(Index(CLASSES, ()), tmp_path / "index.csv")
    rows = [f"{name},train,zebra,4,3,{name}.png\n" for name in "cadb"]
    (tmp_path / "index.csv").write_text(HEAD + "".join(rows))
    found = read_index(tmp_path / "index.csv").records.names
    assert list(found) == list("abcd") and found.ascending


def test_text_of_another_encoding_is_said_before_all_else(tmp_path: Path) -> None:
    write_index(Index(CLASSES, ()), tmp_path / "index.csv")
    head = "nonsense\n" + "x" * (3 << 20)
    (tmp_path / "index.csv").write_bytes(head.encode() + "ö\n".encode("latin-1"))
    with pytest.raises(UserError, match=rf"not UTF-8 text \(byte {len(head)}: "):
        read_index(tmp_path / "index.csv")
