"""The sources of a cohort: where scans and annotations lie, and what is known of them."""

import msgspec

from octedge.train.labelmaps import LabelMap


class Masks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="masks", tag_field="kind"):
    """A set of images with masks of the same file stem. `patient` is a regular expression whose first group is the patient."""

    name: str
    images: str
    masks: str
    labels: LabelMap
    patient: str
    validation: tuple[str, ...] = ()
    vendor: str = "unknown"
    licence: str = "unknown"
    origin: str = ""
    share: float = 1.0


class Boundaries(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="boundaries", tag_field="kind"):
    """A set of images with boundary tables, one file per patient and boundary: a line per column, a value per B-scan.

    `image` matches patient and B-scan number (first and second group) in the image's stem; `table` is the file name of
    boundary K of a patient, with {patient} and {boundary}; `groups` are the regions between the boundaries;
    `first_row` the number the set gives to the top row.
    """

    name: str
    images: str
    tables: str
    image: str
    table: str
    groups: tuple[str, ...]
    first_row: float = 0.0
    validation: tuple[str, ...] = ()
    vendor: str = "unknown"
    licence: str = "unknown"
    origin: str = ""
    share: float = 1.0


class Phantoms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="phantoms", tag_field="kind"):
    """Synthetic B-scans with every structure labelled: `count` to train on, `validation_count` others to validate on."""

    name: str = "phantoms"
    count: int = 200
    validation_count: int = 12
    share: float = 1.0


AnySource = Masks | Boundaries | Phantoms
