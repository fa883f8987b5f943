from __future__ import annotations

import pytest

from rowserve.graphs.proto_tables import ProtoTable, message_classes

ANIMALS = ProtoTable(
    "animals",
    {
        "Zoo": "map<string, Cage> cages = 1; repeated float hours = 3",
        "Cage": "repeated Cage.Animal animals = 1; Kind kind = 2; string keeper = 5 of care; int64 robot = 6 of care",
        "Cage.Animal": "string name = 1; bytes secret = 2",
    },
    {"Kind": "UNKNOWN = 0; WARM = 4"},
)


def test_a_table_becomes_classes_that_read_what_they_write() -> None:
    zoo_class = message_classes(ANIMALS)["animals.Zoo"]
    zoo = zoo_class(hours=[1.5, -2.0])
    cage = zoo.cages["east"]
    cage.kind = 4
    cage.animals.add(name="Ida", secret=b"\0\xff")
    cage.robot = 7
    again = zoo_class.FromString(zoo.SerializeToString())
    assert again == zoo
    assert again.cages["east"].WhichOneof("care") == "robot"
    again.cages["east"].keeper = "Ada"
    assert again.cages["east"].robot == 0
    assert again.cages["east"].animals[0].secret == b"\0\xff"


def test_lists_of_numbers_are_packed() -> None:
    zoo = message_classes(ANIMALS)["animals.Zoo"](hours=[1.0, 2.0])
    assert zoo.SerializeToString() == b"\x1a\x08" + b"\x00\x00\x80\x3f" + b"\x00\x00\x00\x40"


def test_one_table_may_use_what_another_before_it_has() -> None:
    visits = ProtoTable("visits", {"Visit": "animals.Zoo zoo = 1; animals.Kind kind = 2"})
    classes = message_classes(ANIMALS, visits)
    visit = classes["visits.Visit"](zoo=classes["animals.Zoo"](hours=[1.0]))
    assert classes["visits.Visit"].FromString(visit.SerializeToString()).zoo.hours == [1.0]


def test_two_tables_of_one_name_live_side_by_side() -> None:
    other = ProtoTable("animals", {"Zoo": "string name = 1"})
    one, two = message_classes(ANIMALS)["animals.Zoo"], message_classes(other)["animals.Zoo"]
    assert two(name="Basel").SerializeToString() == b"\n\x05Basel"
    assert one(hours=[1.0]).SerializeToString() != b""


@pytest.mark.parametrize(
    "fields", ["string name", "name = 1", "string name = one", "map<string> x = 1", "Nothing x = 1", "string a = 0"]
)
def test_a_table_that_is_wrong_is_refused(fields: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        message_classes(ProtoTable("wrong", {"Wrong": fields}))


def test_an_enum_that_is_wrong_is_refused() -> None:
    with pytest.raises(ValueError, match="ONE"):
        message_classes(ProtoTable("wrong", {}, {"Kind": "ONE"}))
