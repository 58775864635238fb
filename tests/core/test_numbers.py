"""Numbers in the spellings that people and models use; what is not understood equals nothing."""

from __future__ import annotations

import math
import time
from fractions import Fraction

import pytest

from luthier.core.numbers import DIGITS, is_number, last_number, same

EQUAL = [
    ('9,500', '9500'),
    ('9.500', '9500'),
    ('9500', '9.500'),
    ('9.500', '9.5'),
    ('5 000', '5000'),
    ('5\u00a0000', '5000'),
    ('5\u202f000', '5000'),
    ("5'000", '5000'),
    ('5’000', '5000'),
    ('9{,}500', '9500'),
    ('$9{,}500$', '9,500'),
    ('9\\,500', '9500'),
    ('9{\\,}500', '9500'),
    ('9,\\!500', '9500'),
    ('9~500', '9500'),
    ('5_000', '5000'),
    ('72,', '72'),
    ('72.', '72'),
    ('**72**', '72'),
    ('_72_', '72'),
    ('\\boxed{72}', '72'),
    ('1.5e3', '1500'),
    ('1.5E+3', '1500'),
    ('15e-1', '1.5'),
    ('10^3', '1000'),
    ('10**3', '1000'),
    ('10³', '1000'),
    ('2 \\times 10^{5}', '200000'),
    ('2×10^5', '200000'),
    ('2 x 10^5', '200000'),
    ('2 \\cdot 10^{-3}', '0.002'),
    ('2*10**5', '200000'),
    ('2×10⁵', '200000'),
    ('2 · 10⁻³', '0,002'),
    ('3/4', '0.75'),
    ('\\frac{3}{4}', '0.75'),
    ('\\frac34', '3/4'),
    ('\\dfrac{3}{4}', '3/4'),
    ('-\\frac{3}{4}', '-0.75'),
    ('1 1/2', '1.5'),
    ('1\\frac{1}{2}', '1.5'),
    ('1½', '1.5'),
    ('½', '0.5'),
    ('3⁄4', '0.75'),
    ('−5', '-5'),
    ('–5', '-5'),
    ('-$40', '-40'),
    ('$-40', '-40'),
    ('minus 5', '-5'),
    ('negative five is negative 5', '-5'),
    ('= - 5', '-5'),
    ('50 %', '50'),
    ('50%', '50%'),
    ('50\\%', '50 %'),
    ('$9,500.00', '9500'),
    ('€ 9.500,00', '9500'),
    ('1.234,56 €', '1234.56'),
    ('1,234.56', '1234,56'),
    ("CHF 9'500.–", '9500'),
    ('USD5', '5'),
    ('Rs.500', '500'),
    ('12,34,567', '1234567'),
    ('1.234.567', '1234567'),
    ('0,500', '0.5'),
    ('9,5', '9.5'),
    ('9,500', '9,5'),
    ('25 cm^2', '25'),
    ('25 cm²', '25'),
    ('25 m2', '25'),
    ('25\\text{ cm}^2', '25'),
    ('72°', '72'),
    ('72^\\circ', '72'),
    ('2 million', '2000000'),
    ('2,5 Millionen', '2500000'),
    ('10k', '10000'),
    ('$5M', '5,000,000'),
    ('300K', '300'),
    ('答案是72', '72'),
    ('７２', '72'),
    ('٧٢', '72'),
    ('+5', '5'),
    ('3rd', '3'),
    ('about.5', '5'),
    ('- 5', '5'),
    ('7-3', '3'),
    ('step 2 of v1.2b3', '2'),
    ('x = -3', '-3'),
    ('3.0', '3'),
    ('.5', '0.5'),
    ('1 234,5', '1234.5'),
    ('6/3', '2'),
    ('#### 9,500', '9500'),
    ('9,500', '9.500'),
    ('\\$9,500', '9500'),
    ('9,500.', '9500'),
    ('0.333...', '0.333'),
    ('3 / 4', '0.75'),
    ('(5)', '5'),
    ('0', '-0'),
    ('1,000,000', '1e6'),
    ('5 apples.', '5'),
    ('the 5 of them!', '5'),
    ('3万', '30000'),
    ('3，500元', '3500'),
    ('2 lakh', '200,000'),
    ('2 dozen eggs', '2'),
    ('2 dozen', '24'),
    ("9'500.50", '9,500.5'),
    ('£ -3', '-3'),
    ('1 000 000,50', '1,000,000.5'),
    ('-1e-3', '-0.001'),
    ('\\textbf{72}', '72'),
    ('\\text{72 apples}', '72'),
]  # fmt: skip
DIFFERENT = [
    ('9,500', '9.5'),
    ('9.5', '9,500'),
    ('9.500', '9,5'),
    ('one', 'two'),
    ('', ''),
    ('none', 'none'),
    ('10:30', '30'),
    ('2:3', '3'),
    ('2024-01-05', '5'),
    ('192.168.1.1', '1'),
    ('2\\sqrt{3}', '3'),
    ('√3', '3'),
    ('3π', '3'),
    ('3\\pi', '3'),
    ('\\frac{\\pi}{2}', '2'),
    ('2*3', '3'),
    ('2 × 3', '3'),
    ('5 ± 2', '2'),
    ('2 million', '2'),
    ('50%', '0.5'),
    ('minus 5', '5'),
    ('1e999999999', '1e999999999'),
    ('1/0', '1/0'),
    ('2^x', '2'),
    ('(-2)^{3}', '-2'),
    ('1/2/2024', '2024'),
    ('3+4i', '4'),
    ('H2O', '2'),
    ('0x1F', '1'),
    ('0.\\overline{3}', '3'),
    ('inf', 'inf'),
    ('nan', 'nan'),
    ('5 000', '0'),
    ('1/3', '0.33'),
    ('5', '-5'),
    ('2^99999999', '2^99999999'),
    ('3/4', '4'),
    ('\\frac{3}{4}', '4'),
    ('1.2.3', '1.2.3'),
    ('5 minus 3', '-3'),
    ('3万', '3'),
    ('100 × 5%', '5'),
    ('5/0', '5'),
    ('555-12-34', '34'),
    ("5°30'", '30'),
    ('\\sqrt[3]{8}', '8'),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "reference"), EQUAL)
def test_equal_values_are_equal_however_they_are_spelled(answer, reference):
    assert same(answer, reference)


@pytest.mark.parametrize(("answer", "reference"), DIFFERENT)
def test_other_values_and_what_cannot_be_read_are_not_equal(answer, reference):
    assert not same(answer, reference)


@pytest.mark.parametrize("text", ["", "none", "10:30", "192.168.1.1", "2 * 3", "9" * (DIGITS + 1), "1e999", "inf", "²"])
def test_what_cannot_be_read_is_not_equal_to_itself(text):
    assert not same(text, text)


@pytest.mark.parametrize(
    ("answer", "reference", "equal"),
    [
        ("9.500", "9.5", True), ("9.500", "9,5", False), ("9.500", "9500", True), ("9.500", "9.500", True),
        ("9,500", "9.5", False), ("9,500", "9,5", True), ("9,500", "9500", True), ("9.5", "9,500", False),
        ("12.000", "1.234,50", False), ("1.234,5", "1.234,50", True),
    ],
)  # fmt: skip
def test_where_a_mark_may_be_either_the_reference_decides(answer, reference, equal):
    assert same(answer, reference) is equal


def test_values_are_exact_and_finite():
    found = last_number("it is 0.1")
    assert found.values == (Fraction(1, 10),)
    assert last_number("9.500").values == (Fraction(19, 2), 9500)
    assert math.isfinite(float(last_number("1e300").values[0]))


@pytest.mark.parametrize(
    ("text", "number"),
    [("72", True), ("$9,500", True), ("50 %", True), ("steps\n#### 1 000", True), ("-3.5", True), ("3/4", True),
     ("5 apples", False), ("2024-01-05", False), ("x", False), ("", False)],
)  # fmt: skip
def test_texts_that_are_one_number(text, number):
    assert is_number(text) is number


@pytest.mark.medium
@pytest.mark.parametrize("piece", ["1,", "9", "1 1/2 ", "\\frac{", "1^", "-", "1 ", "{,}", "1-", "\\text{"])
def test_long_texts_are_read_in_one_pass(piece):
    """A megabyte takes about a second; what looked at each number again for each other took minutes."""
    began = time.process_time()
    last_number(piece * (300_000 // len(piece)))
    assert time.process_time() - began < 10
