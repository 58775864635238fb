"""Which turns are learned, as other tools mark them."""

import pytest

from luthier.core.errors import InputError
from luthier.data.learned_turns import LEARNED, UNLEARNED
from luthier.data.messages import turns_of
from sentences import sentence

NO = [0, 0.0, False, "0", "0.0", "false", "False", " no "]
YES = [1, 1.0, True, "1", "true", None, ""]


def learned(**flags):
    (turn,) = turns_of({"role": "assistant", "content": "5", **flags}, "messages[1]")
    return turn.train


@pytest.mark.parametrize("name", LEARNED)
def test_a_flag_that_says_no_means_not_learned(name):
    """Axolotl `train`, ms-swift `loss`, verl `loss_mask`, OpenAI `weight`: as text and as numbers too."""
    assert [learned(**{name: value}) for value in NO] == [False] * len(NO)
    assert [learned(**{name: value}) for value in YES] == [True] * len(YES)


@pytest.mark.parametrize("name", UNLEARNED)
def test_masked_means_not_learned(name):
    """torchtune's `masked` has the other sense."""
    assert not learned(**{name: True}) and not learned(**{name: "1"})
    assert learned(**{name: False}) and learned(**{name: None})


@pytest.mark.parametrize(
    ("flags", "refused"),
    [
        ({"weight": 0.5}, sentence("train neither 0 nor 1", field="messages[1]", name="weight", value="0.5")),
        ({"weight": 2}, sentence("train neither 0 nor 1", name="weight", value=2)),
        ({"loss_scale": "0.3"}, sentence("train neither 0 nor 1", name="loss_scale", value="'0.3'")),
        ({"train": "perhaps"}, sentence("train neither 0 nor 1", name="train", value="'perhaps'")),
        (
            {"weight": 1, "train": False},
            sentence("turn learned and not", field="messages[1]", yes="weight", no="train"),
        ),
        ({"masked": True, "loss": 1}, sentence("turn learned and not", yes="loss", no="masked")),
        (
            {"mask": 1},
            sentence("strange flag", field="messages[1]", flag="mask", fault="may mean learned or not learned"),
        ),
        (
            {"training_detail": [{"begin_offset": 0, "end_offset": 3, "train": False}]},
            sentence("strange flag", flag="training_detail", fault="marks parts of a turn…"),
        ),
    ],
)
def test_what_cannot_be_followed_is_refused(flags, refused):
    with pytest.raises(InputError, match=refused):
        learned(**flags)
