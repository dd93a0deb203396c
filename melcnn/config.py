"""What a trial is: frozen, validated configurations of front-end, network, training and data.

An unknown key is an error; `Trial.canonical()` is the text that a trial's identity is hashed from.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from melcnn.errors import InputError, one_line


def legal_groups(n_mels: int, channels: int) -> list[int]:
    """The group counts that divide both the mel channels and the network's channels."""
    common = math.gcd(n_mels, channels)
    return [groups for groups in range(1, common + 1) if common % groups == 0]


def check_groups(n_mels: int, channels: int, groups: int) -> None:
    """Raises `InputError` unless `groups` divides both channel counts."""
    legal = legal_groups(n_mels, channels)
    if groups not in legal:
        raise InputError(
            f"groups {groups} does not divide both {n_mels} mel channels and {channels} channels: "
            f"use one of {', '.join(map(str, legal))}"
        )


def check_words(words: tuple[str, ...]) -> None:
    """Raises `InputError` unless there are two or more different words."""
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


# What a file system takes for the name of a folder.
MAX_WORD_LENGTH = 255

# Values of one clip in its spectrum, or between two layers: the study has 20,301 and 8,080. Batches hold hundreds of
# clips, and with more a configuration would fill any memory as soon as it is used.
MAX_VALUES_A_CLIP = 2**21


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FrontEnd(Config):
    """Log-mel features: power spectrum of Hann-windowed frames, triangular mel filters, log(x + 1e-6).

    normalize: "clip", less the clip's mean over mels and frames, so that its loudness changes nothing but what the
    offset hides; "mel", each mel less its own mean over frames, so that neither does the colour of a microphone
    (cepstral mean subtraction, Atal, JASA 55, 1974, before the transform to cepstra).
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
        """Of a clip, which lasts one second."""
        return self.sample_rate // self.hop_length + 1


VARIANTS = ("plain", "interleaved", "shuffle", "separable")
# Those that let groups exchange what they hear: of one group they are the plain network.
SHUFFLING_VARIANTS = ("interleaved", "shuffle")


class Model(Config):
    """The network behind the front-end; see `melcnn.MelCNN`. `plain` is the study's network."""

    groups: Annotated[int, Field(ge=1)] = 1
    channels: Annotated[int, Field(ge=1, le=4096)] = 32
    variant: Literal[VARIANTS] = "plain"


# What a recipe sets, where nobody says otherwise; the rest is as in `plain`, by section of a trial.
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
    """How a network is trained: Adam on cross-entropy. The defaults are the recipe `plain`'s; `configure` fills in
    those of another one.

    epochs: the most epochs. patience: a network stops after this many epochs without a new lowest validation loss;
    None: it does not. (15: on five folds of the training speakers, held out, 10 cost a tenth of the loss at groups 1
    and 15 cost nothing against no stopping at all; validation losses of 187 clips are noisy.) keep: the epoch of best
    validation accuracy (of equals, of lowest validation loss), or the last one.
    schedule: of the learning rate (`melcnn.steps.rate`). weight_decay: decoupled from the gradient (Loshchilov and
    Hutter, arXiv:1711.05101), for weights alone. label_smoothing: the share of a label that goes to all words alike
    (Szegedy et al., arXiv:1512.00567). ema_decay: of the exponential moving average of
    the weights, step by step, that is evaluated and kept; 0: the weights themselves.
    What a network hears of a clip, each epoch anew (`melcnn.augmentation`): shift, the most that it is moved, either
    way, as a share of the clip; time_mask, mel_mask: the widest of two spans of frames and of mels that are masked, as
    shares of all. speed: it is as often slower, or faster, by this share; noise: it is as often in background noise, if
    the data set has any (`melcnn.data.renditions`).
    """

    recipe: Literal["plain", "default"] = "plain"
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
    """The words to tell apart; a clip's label is the index of its word."""

    words: tuple[str, ...] = ("yes", "no")

    @model_validator(mode="after")
    def _check(self) -> "Data":
        check_words(self.words)
        return self


class Trial(Config):
    """One configuration of the experiment; with a seed and the data it fixes a result."""

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
        # Two poolings by 2 need four.
        if self.front_end.frames < 4:
            raise ValueError(
                f"hop_length {self.front_end.hop_length} is out of range: the network needs 4 frames or more of a "
                f"second, so hop_length must be 1 to {self.front_end.sample_rate // 3}"
            )
        return self

    def canonical(self) -> str:
        """The configuration as JSON with sorted keys and no spaces: equal texts, equal trials.

        Settings that came later than the first records are left out where they change nothing, so that these keep
        their identity.
        """
        content = self.model_dump(mode="json")
        for section, later in LATER_SETTINGS.items():
            for name, value in later.items():
                if content[section][name] == value:
                    del content[section][name]
        return json.dumps(content, sort_keys=True, separators=(",", ":"))


# Where each setting that a person can name lives in a `Trial`.
SETTINGS: dict[str, str] = {
    **dict.fromkeys(("n_mels", "n_fft", "hop_length", "normalize"), "front_end"),
    **dict.fromkeys(("groups", "channels", "variant"), "model"),
    **dict.fromkeys(Training.model_fields, "training"),
}

# What came later than the first records, with the values that change nothing.
LATER_SETTINGS: dict[str, dict[str, object]] = {
    "front_end": {"normalize": "none"},
    "training": {
        name: field.default
        for name, field in Training.model_fields.items()
        if name not in ("recipe", "learning_rate", "batch_size", "epochs", "patience")
    },
}


def configure(words: tuple[str, ...] | list[str] = ("yes", "no"), **settings: Any) -> Trial:
    """A trial from flat settings, such as `configure(n_mels=40, groups=4)`; the rest is the recipe's.

    settings: any of `SETTINGS`. Raises `InputError` for an unknown name or a value out of range.
    """
    recipe = RECIPES.get(settings.get("recipe", "plain"), {})  # an unknown one is refused with the others below
    sections: dict[str, dict[str, Any]] = {
        name: dict(recipe.get(name, {})) for name in ("front_end", "model", "training")
    }
    for name, value in settings.items():
        if name not in SETTINGS:
            raise InputError(f"there is no setting {name!r}: the settings are {', '.join(SETTINGS)}")
        sections[SETTINGS[name]][name] = value
    with one_line("configuration"):
        return Trial(data=Data(words=tuple(words)), **sections)


def settings_of(trial: Trial) -> dict[str, Any]:
    """The settings of a trial by the names of `SETTINGS`."""
    return {name: getattr(getattr(trial, section), name) for name, section in SETTINGS.items()}


def recipe_settings(recipe: str) -> dict[str, Any]:
    """The settings of a recipe where nobody says otherwise."""
    return settings_of(configure(recipe=recipe))


def varying_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the settings that tell configurations apart: those that vary, but for what follows from recipes."""
    expected = {recipe: recipe_settings(recipe) for recipe in {each["recipe"] for each in settings}}

    def follows(name: str) -> bool:
        return name != "recipe" and all(each[name] == expected[each["recipe"]][name] for each in settings)

    return [name for name in settings[0] if len({each[name] for each in settings}) > 1 and not follows(name)]


def descriptions(trials: Iterable[Trial]) -> dict[Trial, str]:
    """Each trial by the settings in which it differs from others or from its recipe's, as `groups=4 n_mels=80`."""
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
    """Each configuration's name among `trials`, such as `groups=4 n_mels=80`."""
    settings = {trial: settings_of(trial) for trial in trials}
    shown = varying_settings(list(settings.values())) if trials else []
    if not shown:
        return descriptions(trials)
    return {trial: " ".join(f"{name}={own[name]}" for name in shown) for trial, own in settings.items()}
