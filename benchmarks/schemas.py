"""Write the JSON Schemas of the files octedge reads and writes to docs/schemas.

python -m benchmarks.schemas
"""

import json
from pathlib import Path

import msgspec

from octedge.card import ModelCard
from octedge.edge.bench import Report
from octedge.edge.certificate import Certificate
from octedge.edge.ledger import Ledger
from octedge.results.thickness import Thickness
from octedge.service.settings import Settings
from octedge.train.manifest import Cohort
from octedge.train.recipe import Recipe
from octedge.train.select import Selection
from octedge.train.tuning import Tuning

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"
KINDS = {
    "bench": Report,
    "card": ModelCard,
    "certificate": Certificate,
    "cohort": Cohort,
    "ledger": Ledger,
    "recipe": Recipe,
    "selection": Selection,
    "thickness": Thickness,
    "service": Settings,
    "tuning": Tuning,
}


def text(kind: type) -> str:
    """The schema of one kind of file."""
    return json.dumps(msgspec.json.schema(kind), indent=1) + "\n"


def main() -> None:
    """Write them all."""
    for name, kind in KINDS.items():
        (FOLDER / f"{name}.json").write_text(text(kind), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
