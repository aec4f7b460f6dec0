"""The published schemas are those of the code."""

import json

import pytest

from benchmarks.schemas import FOLDER, KINDS, text
from octedge.edge.bundle import REFERENCE


@pytest.mark.parametrize("name", KINDS)
def test_the_published_schema_is_the_codes(name):
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == text(KINDS[name]), "run python -m benchmarks.schemas"


def test_the_card_schema_names_every_field_of_the_shipped_card_and_allows_no_other():
    schema = json.loads(text(KINDS["card"]))["$defs"]["ModelCard"]
    assert schema["additionalProperties"] is False
    stated = set(json.loads((REFERENCE / "card.json").read_text(encoding="utf-8")))
    assert set(schema["required"]) <= stated <= set(schema["properties"])
