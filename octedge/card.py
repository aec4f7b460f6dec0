"""The model card: everything about a network that its weights do not say. It travels inside the bundle and the ONNX file."""

import math

import msgspec

from octedge.anatomy import check_classes, surface_names
from octedge.errors import ModelError, UsageError
from octedge.geometry import AxialRange, Windowing
from octedge.ordered import Chain

SCHEMA = 1


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A data set the network was trained on: what, under which licence, how much of it, and what it labels."""

    name: str
    licence: str
    patients: int
    bscans: int
    labels: tuple[str, ...]  # classes as the set annotates them, "gcl+ipl" where it merges
    origin: str = ""


class Score(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How well one class of one source's validation set was found; IoU and Dice in 0..1, the boundary above it in px."""

    source: str
    label: str
    iou: float
    dice: float
    boundary_px: float | None = None


class Precision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a precision other than fp32 did against fp32 when the bundle was made, on ONNX Runtime.

    `equal` share of equal labels and `p99_px` 99th percentile of surface differences, on the golden frames; `iou_loss` of the
    mean IoU over the labelled validation scans, None where none were at hand; `in_float` the convolutions left in float.
    """

    name: str
    equal: float
    p99_px: float
    iou_loss: float | None = None
    in_float: tuple[str, ...] = ()


class ModelCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a bundle's network is, knows, needs and was trained on.

    `structures` (C,) its classes in the order of the graph's outputs; `window` and `overlap` in columns and `downs`
    (grid = 2^downs) its tiling; `receptive_field` how many columns to each side a pixel sees, measured;
    `exact` only where tiled == whole was proved on data; `axial_um` low, nominal, high of the rows it was trained for.
    """

    schema: int = SCHEMA
    id: str
    structures: tuple[str, ...]
    window: int
    overlap: int
    downs: int
    exact: bool
    receptive_field: int
    axial_um: tuple[float, float, float]
    heights: tuple[int, ...]  # padded heights it was trained on
    temperature: float = 0.0  # that makes the surfaces' standard deviations fit its errors (`octedge.spread`); 0: not measured
    golden: str = ""  # SHA-256 of the golden answers it was exported with; older cards do not say
    input_bits: int = 8
    architecture: str = ""
    parameters: int = 0
    software: dict[str, str] = {}
    sources: tuple[Source, ...] = ()
    scores: tuple[Score, ...] = ()
    precisions: tuple[Precision, ...] = ()
    caveats: tuple[str, ...] = ()
    licence: str = ""
    use: str = "Research use only. Not a medical device."

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            what = f"the card has schema {self.schema}, this octedge reads schema {SCHEMA}"
            raise ModelError(f"{what}; use a matching octedge or export the model anew")
        if not 2 <= len(self.structures) <= 254:
            raise ModelError(f"the card lists {len(self.structures)} structures; 2 to 254 are possible")
        try:
            check_classes(self.structures)
            _ = self.windowing
        except UsageError as error:
            raise ModelError(f"the card is wrong: {error}") from error
        if not 0 <= self.temperature < math.inf:
            raise ModelError(f"the card's temperature {self.temperature} must be a finite number, 0 where none was measured")
        low, nominal, high = self.axial_um
        if not 0 < low <= nominal <= high:
            raise ModelError(f"the card's axial_um {self.axial_um} must be low <= nominal <= high, all above 0")

    @property
    def windowing(self) -> Windowing:
        """The tiling rule the network was trained and certified with."""
        return Windowing(self.window, self.overlap, 1 << self.downs)

    @property
    def axial_range(self) -> AxialRange:
        """The row spacings it was trained for."""
        return AxialRange(*self.axial_um)

    @property
    def chain(self) -> Chain:
        """How its classes are ordered."""
        return Chain.of(self.structures)

    @property
    def surfaces(self) -> tuple[str, ...]:
        """The L names of its surfaces."""
        return surface_names(self.structures)


def encode_card(card: ModelCard) -> bytes:
    """The card as indented JSON, UTF-8."""
    return msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n"


def decode_card(data: bytes, name: str = "card.json") -> ModelCard:
    """Read a card from JSON; unknown or missing fields are refused.

    Raises `ModelError` naming the field.
    """
    try:
        return msgspec.json.decode(data, type=ModelCard)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{name}: not a model card: {error}; the bundle is damaged or from another version") from error
