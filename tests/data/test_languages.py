"""Scripts by Unicode block, languages by a vote."""

import pytest

from luthier.data.languages import languages, scripts


def test_scripts_count_letters_only():
    assert scripts(["ab, 12", "вг"]) == {"Latin": 0.5, "Cyrillic": 0.5}
    assert scripts(["12!?"]) == {}
    assert list(scripts(["日本", "abc"])) == ["Latin", "Han"]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The cat is on the mat and it was not amused.", "English"),
        ("Die Katze ist nicht auf dem Tisch, und das ist ein Glück.", "German"),
        ("Le chat est dans la maison avec les enfants et il dort.", "French"),
        ("El gato está en la casa con los niños y duerme muy bien.", "Spanish"),
        ("Il gatto è nella casa, ma non sono i bambini che dormono.", "Italian"),
        ("O gato não está em casa, você mora com uma tia e os dois.", "Portuguese"),
        ("De kat is niet in het huis, maar ook niet op een stoel.", "Dutch"),
        ("Кошка сидит на столе.", "Russian or another in Cyrillic"),
        ("猫はテーブルの上にいる。", "Japanese"),
        ("猫在桌子上。", "Chinese"),
        ("고양이가 있다", "Korean"),
        ("1 + 1 = 2", "unknown"),
        ("xyzzy plugh", "unknown"),
    ],
)
def test_language(text, language):
    assert languages([text]) == {language: 1.0}
