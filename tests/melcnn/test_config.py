import pytest

from melcnn import InputError, Trial, configure
from melcnn.config import descriptions
from tests.helpers.configurations import plain


def test_defaults_are_the_study_and_the_plain_recipe():
    trial = plain()
    assert (trial.front_end.sample_rate, trial.front_end.n_fft, trial.front_end.hop_length) == (16_000, 400, 160)
    assert (trial.front_end.n_mels, trial.model.groups, trial.model.channels) == (80, 1, 32)
    training = trial.training
    assert (training.recipe, training.learning_rate, training.batch_size, training.epochs) == ("plain", 1e-3, 64, 30)
    assert trial.data.words == ("yes", "no")


def test_json_round_trip_and_identity_text():
    trial = plain(("go", "stop"), n_mels=40, groups=4)
    assert Trial.model_validate_json(trial.canonical()) == trial
    assert trial.canonical() != plain(("stop", "go"), n_mels=40, groups=4).canonical()


def test_settings_that_came_later_leave_the_identity_of_older_records():
    assert plain().canonical() == (
        '{"data":{"words":["yes","no"]},"front_end":{"f_max":null,"f_min":0.0,"hop_length":160,"mel_scale":"htk",'
        '"n_fft":400,"n_mels":80,"norm":null,"sample_rate":16000},"model":{"channels":32,"groups":1,"variant":"plain"},'
        '"training":{"batch_size":64,"epochs":30,"learning_rate":0.001,"patience":15,"recipe":"plain"}}'
    )
    for change in ({"normalize": "mel"}, {"noise": True}, {"shift": 0.1}, {"keep": "last"}, {"variant": "shuffle"}):
        assert plain(**change).canonical() != plain().canonical()


def test_a_recipe_fills_in_what_nobody_said():
    trial = configure(recipe="default", epochs=7)
    assert (trial.training.epochs, trial.training.schedule, trial.front_end.normalize) == (7, "cosine", "mel")
    assert Trial.model_validate_json(trial.canonical()) == trial
    assert descriptions([trial]) == {trial: "epochs=7"}
    both = [configure(recipe=recipe, groups=groups) for recipe in ("plain", "default") for groups in (1, 2)]
    assert list(descriptions(both).values()) == [
        f"groups={groups} recipe={recipe}" for recipe in ("plain", "default") for groups in (1, 2)
    ]


def test_frozen():
    with pytest.raises(ValueError, match="frozen"):
        plain().model.groups = 2


@pytest.mark.parametrize(
    "words, settings, message",
    [
        (("yes", "no"), {"color": 1}, "settings are n_mels"),
        (("yes", "no"), {"groups": 3}, "one of 1, 2, 4, 8, 16"),
        (("yes", "no"), {"groups": "many"}, "integer"),
        (("yes", "no"), {"n_mels": 300}, "1 to 201"),
        (("yes", "no"), {"epochs": 0}, "epochs"),
        (("yes", "no"), {"recipe": "secret"}, "recipe"),
        (("yes",), {}, "one word alone"),
        ((), {}, "no words"),
        (("yes", "yes"), {}, "different"),
    ],
)
def test_bad_input_is_one_line(words, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        plain(words, **settings)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_in_json_is_an_error():
    with pytest.raises(ValueError, match="Extra inputs"):
        Trial.model_validate({"model": {"groups": 1, "depth": 3}})


@pytest.mark.parametrize(
    "words, settings, message",
    [
        (("yes", "x" * 256), {}, r"a word has 256 characters \('xxxxxxxxxxxxxxxxxxxx' ...\): .* at most 255"),
        (("yes", "no"), {"learning_rate": float("inf")}, "learning_rate.*finite"),
        (("yes", "no"), {"weight_decay": float("nan")}, "weight_decay.*finite"),
        (("yes", "no"), {"patience": 10**30}, "patience.*1000000"),
        # Of a hop of 1 sample a second of 16,000 has 16,001 frames, each of 16,384 // 2 + 1 bins: 131,096,193 values.
        (
            ("yes", "no"),
            {"hop_length": 1, "n_fft": 16_384},
            "16001 frames.* 131,096,193 .*at most 2,097,152.*raise hop",
        ),
        # And of 4 samples 4001, with 4096 channels: 16,388,096.
        (("yes", "no"), {"hop_length": 4, "channels": 4096}, "channels 4096 .*up to 16,388,096 values"),
    ],
)
def test_settings_that_would_fill_any_memory_or_never_end(words, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        plain(words, **settings)
    assert "\n" not in str(caught.value)


def test_the_longest_word_and_the_largest_spectrum_are_possible():
    # 131 frames of 16,001 / 122; 8193 bins of them are 1,073,283 values.
    assert plain(("yes", "x" * 255), hop_length=123, n_fft=16_384).front_end.frames == 131
