import pytest

from melcnn import InputError, Trial, configure


def test_defaults_are_the_study_and_the_plain_recipe():
    trial = configure()
    assert (trial.front_end.sample_rate, trial.front_end.n_fft, trial.front_end.hop_length) == (16_000, 400, 160)
    assert (trial.front_end.n_mels, trial.model.groups, trial.model.channels) == (80, 1, 32)
    training = trial.training
    assert (training.recipe, training.learning_rate, training.batch_size, training.epochs) == ("plain", 1e-3, 64, 30)
    assert trial.data.words == ("yes", "no")


def test_json_round_trip_and_identity_text():
    trial = configure(("go", "stop"), n_mels=40, groups=4)
    assert Trial.model_validate_json(trial.canonical()) == trial
    assert trial.canonical() != configure(("stop", "go"), n_mels=40, groups=4).canonical()


def test_frozen():
    with pytest.raises(ValueError, match="frozen"):
        configure().model.groups = 2


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
        configure(words, **settings)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_in_json_is_an_error():
    with pytest.raises(ValueError, match="Extra inputs"):
        Trial.model_validate({"model": {"groups": 1, "depth": 3}})
