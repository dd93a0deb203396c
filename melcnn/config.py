"""Frozen, validated configurations of front-end, network, training and data; a `Trial` holds all four.

An unknown key is an error; `Trial.canonical()` is the text that a trial's identity is hashed from.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from melcnn.errors import InputError, did_you_mean, one_line

if TYPE_CHECKING:
    from typing_extensions import Unpack


def legal_groups(n_mels: int, channels: int) -> list[int]:
    """Return the group counts that divide both the mel channels and the network's channels."""
    common = math.gcd(n_mels, channels)
    return [groups for groups in range(1, common + 1) if common % groups == 0]


def check_groups(n_mels: int, channels: int, groups: int) -> None:
    """Raise `InputError` unless `groups` divides both channel counts."""
    legal = legal_groups(n_mels, channels)
    if groups not in legal:
        raise InputError(
            f"groups {groups} does not divide both {n_mels} mel channels and {channels} channels: "
            f"use one of {', '.join(map(str, legal))}"
        )


def words_of(words: Iterable[str]) -> tuple[str, ...]:
    """Return words as a tuple. Raises `InputError` for a single text, of which each character would be a word."""
    found = None if isinstance(words, str) or not isinstance(words, Iterable) else tuple(words)
    if found is None or not all(isinstance(word, str) for word in found):
        raise InputError(f"words must be several texts, such as ('yes', 'no'), not {words!r:.40}")
    return found


def check_words(words: tuple[str, ...]) -> None:
    """Raise `InputError` unless there are two or more different words."""
    if len(words) < 2:
        raise InputError(
            f"one word alone ({words[0]!r}) cannot be told apart: give two or more with commas, such as yes,no"
            if words
            else "no words given: give two or more, such as yes,no"
        )
    if len(longest := max(words, key=len)) > MAX_WORD_LENGTH:
        raise InputError(
            f"a word has {len(longest):,} characters ({longest[:20]!r} ...): the name of its folder has at most "
            f"{MAX_WORD_LENGTH}"
        )
    if len(set(words)) < len(words) or any(not word or word != word.strip() for word in words):
        raise InputError(f"words must be different and not empty, but were {','.join(words)!r}")


# The longest folder name that file systems allow.
MAX_WORD_LENGTH = 255

# Values of one clip in its spectrum, or between two layers: the study has 20,301 and 8,080. Batches hold hundreds of
# clips, and a configuration beyond this limit would fill any memory as soon as it is used.
MAX_VALUES_A_CLIP = 2**21


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FrontEnd(Config):
    """Log-mel features: power spectrum of Hann-windowed frames, triangular mel filters, log(x + 1e-6).

    Attributes:
        normalize: "none"; "clip" subtracts the clip's mean over mels and frames, which removes its loudness up to the
            offset; "mel" subtracts the mean of each mel over frames, which also removes the frequency response of a
            microphone (cepstral mean subtraction, Atal, JASA 55, 1974, before the transform to cepstra).
    """

    sample_rate: Annotated[int, Field(ge=1000, le=192_000)] = 16_000
    n_fft: Annotated[int, Field(ge=16, le=16_384)] = 400
    hop_length: Annotated[int, Field(ge=1, le=16_384)] = 160
    n_mels: Annotated[int, Field(ge=1)] = 80
    f_min: Annotated[float, Field(ge=0)] = 0.0
    f_max: float | None = None
    norm: Literal["slaney"] | None = None
    mel_scale: Literal["htk", "slaney"] = "htk"
    normalize: Literal["none", "clip", "mel"] = "none"

    @model_validator(mode="after")
    def _check(self) -> "FrontEnd":
        bins = self.n_fft // 2 + 1
        if self.n_mels > bins:
            raise ValueError(
                f"n_mels {self.n_mels} is out of range: n_fft {self.n_fft} gives {bins} frequency bins, "
                f"so n_mels must be 1 to {bins} (or raise n_fft)"
            )
        top = self.sample_rate // 2 if self.f_max is None else self.f_max
        if not self.f_min < top <= self.sample_rate / 2:
            raise ValueError(
                f"f_min {self.f_min:g} and f_max {top:g} Hz must satisfy "
                f"f_min < f_max <= sample_rate / 2 = {self.sample_rate / 2:g}"
            )
        return self

    @property
    def frames(self) -> int:
        """The frames of a clip, which lasts one second."""
        return self.sample_rate // self.hop_length + 1


Recipe = Literal["plain", "default"]
# The recipe of `configure` and of the commands that train where nobody names another.
DEFAULT_RECIPE: Recipe = "default"
Variant = Literal["plain", "interleaved", "shuffle", "separable"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
# These exchange channels between groups: with groups 1 they are the plain network.
SHUFFLING_VARIANTS = ("interleaved", "shuffle")


class Model(Config):
    """The network behind the front-end; see `melcnn.MelCNN`. `plain` is the study's network."""

    groups: Annotated[int, Field(ge=1)] = 1
    channels: Annotated[int, Field(ge=1, le=4096)] = 32
    variant: Variant = "plain"


# The default settings of each recipe, by section of a trial, where they differ from `plain`.
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {"front_end": {}, "training": {}},
    "default": {
        "front_end": {"normalize": "mel"},
        "training": {
            "epochs": 120,
            "patience": None,
            "keep": "last",
            "learning_rate": 0.01,
            "schedule": "cosine",
            "label_smoothing": 0.1,
            "shift": 0.25,
            "time_mask": 0.1,
            "mel_mask": 0.08,
            "speed": 0.1,
            "noise": True,
        },
    },
}


class Training(Config):
    """The training of a network: Adam on cross-entropy.

    The defaults are those of the recipe `plain`; `configure` fills in those of another recipe.

    Attributes:
        epochs: the maximum number of epochs.
        patience: a network stops after this many epochs without a new lowest validation loss; None: it never stops
            early. (15: on five folds of the training speakers, held out, 10 cost a tenth of the loss at groups 1 and 15
            cost nothing against no stopping at all; validation losses of 187 clips are noisy.)
        keep: the epoch whose network is kept: "best", of the highest validation accuracy (among equals, of the lowest
            validation loss), or "last".
        schedule: the learning rate schedule (`melcnn.steps.learning_rate`).
        weight_decay: decoupled from the gradient (Loshchilov and Hutter, arXiv:1711.05101), on weights only.
        label_smoothing: the share of a label that is spread evenly over all words (Szegedy et al., arXiv:1512.00567).
        ema_decay: the decay per step of the exponential moving average of the weights that is evaluated and kept; 0: no
            average.
        shift: the largest shift in time either way, as a share of the clip, drawn each epoch (`melcnn.augmentation`).
        time_mask, mel_mask: the largest width of the two masked spans of frames and of mels, as shares of all.
        speed: the change of speed of slower and faster renditions, a share; each rendition is drawn equally often
            (`melcnn.data.renditions`); 0: none.
        noise: adds a rendition in background noise, if the data set has noise.
    """

    recipe: Recipe = "plain"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 64
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 30
    patience: Annotated[int, Field(ge=1, le=1_000_000)] | None = 15
    keep: Literal["best", "last"] = "best"
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.0
    time_mask: Annotated[float, Field(ge=0, le=1)] = 0.0
    mel_mask: Annotated[float, Field(ge=0, le=1)] = 0.0
    speed: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    noise: bool = False


class Data(Config):
    """The words that the network recognises; a clip's label is the index of its word."""

    words: tuple[str, ...] = ("yes", "no")

    @model_validator(mode="after")
    def _check(self) -> "Data":
        check_words(self.words)
        return self


class Trial(Config):
    """A configuration of the experiment; with a seed and the data it fixes a result."""

    front_end: FrontEnd = FrontEnd()
    model: Model = Model()
    training: Training = Training()
    data: Data = Data()

    @model_validator(mode="after")
    def _check(self) -> "Trial":
        check_groups(self.front_end.n_mels, self.model.channels, self.model.groups)
        bins = self.front_end.n_fft // 2 + 1
        if (
            values := max(bins, self.front_end.n_mels, self.model.channels) * self.front_end.frames
        ) > MAX_VALUES_A_CLIP:
            raise ValueError(
                f"hop_length {self.front_end.hop_length} gives {self.front_end.frames} frames, and n_fft "
                f"{self.front_end.n_fft} and channels {self.model.channels} up to {values:,} values of a clip: at most "
                f"{MAX_VALUES_A_CLIP:,} are possible, so raise hop_length or lower the others"
            )
        # Two poolings by 2 need four frames.
        if self.front_end.frames < 4:
            raise ValueError(
                f"hop_length {self.front_end.hop_length} is out of range: the network needs 4 frames or more of a "
                f"second, so hop_length must be 1 to {self.front_end.sample_rate // 3}"
            )
        return self

    def canonical(self) -> str:
        """Return the configuration as JSON with sorted keys and no spaces: equal trials have equal texts.

        Settings that are newer than the first records are left out at the value that changes nothing, so that older
        records keep their identity.
        """
        content = self.model_dump(mode="json")
        for section, later in LATER_SETTINGS.items():
            for name, value in later.items():
                if content[section][name] == value:
                    del content[section][name]
        return json.dumps(content, sort_keys=True, separators=(",", ":"))


class Settings(TypedDict, total=False):
    """The settings that `configure` takes, by the names of `SETTINGS`; the fields are described where they live."""

    n_mels: int
    n_fft: int
    hop_length: int
    normalize: Literal["none", "clip", "mel"]
    groups: int
    channels: int
    variant: Variant
    recipe: Recipe
    learning_rate: float
    batch_size: int
    epochs: int
    patience: int | None
    keep: Literal["best", "last"]
    schedule: Literal["constant", "cosine"]
    weight_decay: float
    label_smoothing: float
    ema_decay: float
    shift: float
    time_mask: float
    mel_mask: float
    speed: float
    noise: bool


# The section of a `Trial` that holds each setting.
SETTINGS: dict[str, str] = {
    **dict.fromkeys(("n_mels", "n_fft", "hop_length", "normalize"), "front_end"),
    **dict.fromkeys(("groups", "channels", "variant"), "model"),
    **dict.fromkeys(Training.model_fields, "training"),
}

# The settings that are newer than the first records, with the values that change nothing.
LATER_SETTINGS: dict[str, dict[str, object]] = {
    "front_end": {"normalize": "none"},
    "training": {
        name: field.default
        for name, field in Training.model_fields.items()
        if name not in ("recipe", "learning_rate", "batch_size", "epochs", "patience")
    },
}


def configure(words: Sequence[str] = ("yes", "no"), **settings: "Unpack[Settings]") -> Trial:
    """Return a trial from flat settings, such as `configure(n_mels=40, groups=4)`; the rest is the recipe's.

    Without a recipe it is `DEFAULT_RECIPE`, as it is for the commands that train.

    Raises:
        InputError: for an unknown name or a value out of range.
    """
    chosen: dict[str, Any] = {"recipe": DEFAULT_RECIPE, **settings}
    recipe = RECIPES.get(chosen["recipe"], {})  # `Trial` refuses an unknown recipe below.
    sections: dict[str, dict[str, Any]] = {
        name: dict(recipe.get(name, {})) for name in ("front_end", "model", "training")
    }
    for name, value in chosen.items():
        if name not in SETTINGS:
            close = did_you_mean(name, SETTINGS)
            raise InputError(f"there is no setting {name!r}{close}: the settings are {', '.join(SETTINGS)}")
        sections[SETTINGS[name]][name] = value
    with one_line("configuration"):
        return Trial(data=Data(words=words_of(words)), **sections)


def settings_of(trial: Trial) -> dict[str, Any]:
    """Return the settings of a trial by the names of `SETTINGS`."""
    return {name: getattr(getattr(trial, section), name) for name, section in SETTINGS.items()}


def recipe_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the default settings of a recipe."""
    return settings_of(configure(recipe=recipe))


def varying_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the settings that vary, except those that follow from recipes."""
    expected = {recipe: recipe_settings(recipe) for recipe in {each["recipe"] for each in settings}}

    def follows(name: str) -> bool:
        return name != "recipe" and all(each[name] == expected[each["recipe"]][name] for each in settings)

    return [name for name in settings[0] if len({each[name] for each in settings}) > 1 and not follows(name)]


def descriptions(trials: Iterable[Trial]) -> dict[Trial, str]:
    """Return the settings in which each trial differs from others or from its recipe, as `groups=4 n_mels=80`."""
    settings = {trial: settings_of(trial) for trial in trials}
    names = {*varying_settings(list(settings.values()))} if settings else set()
    expected = {recipe: recipe_settings(recipe) for recipe in {own["recipe"] for own in settings.values()}}
    found = {}
    for trial, own in settings.items():
        plain = expected[own["recipe"]]
        shown = {name: value for name, value in own.items() if name in names or value != plain[name]}
        shown = shown or {"groups": trial.model.groups}
        found[trial] = " ".join(f"{name}={value}" for name, value in shown.items())
    return found


def short_names(trials: Sequence[Trial]) -> dict[Trial, str]:
    """Return a name for each trial from the settings that vary among `trials`, such as `groups=4 n_mels=80`."""
    settings = {trial: settings_of(trial) for trial in trials}
    shown = varying_settings(list(settings.values())) if trials else []
    if not shown:
        return descriptions(trials)
    return {trial: " ".join(f"{name}={own[name]}" for name in shown) for trial, own in settings.items()}
