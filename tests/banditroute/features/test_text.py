"""The n-grams and surface counts must equal a plain reading of the same rules, in any batch."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from banditroute.features import text

MASK = (1 << 32) - 1
MULTIPLIER = 0x9E3779B1

PROMPTS = [
    "What is the capital of France?",
    "",
    "Pick one.\nA) red\n(B) green\nC. blue\nD: none",
    "def f(x_1):\n    return 'x' + \"y\"  # python",
    "   ",
    "Prove that $\\sum_{i} x^2 \u2264 \u2211 y$ for 1, 22, 333?  \n",
    "\u00c9t\u00e9 \u65e5\u672c\u8a9e \U0001f600 na\u00efve",
    "nul\x00byte and lone \ud800 surrogate",
    "the the the cat",
]


def plain_words(prompt: str) -> list[bytes]:
    data = prompt.encode("utf-8", "surrogatepass")
    words = re.findall(rb"[A-Za-z0-9\x80-\xff]+", data)
    return [re.sub(rb"[0-9]", b"0", word.lower()) for word in words]


def plain_ngrams(prompt: str) -> dict[int, int]:
    hashes = []
    for word in plain_words(prompt):
        # Position 0 is the separator before the word.
        hashes.append(sum(b * pow(MULTIPLIER, k + 1, 1 << 32) for k, b in enumerate(word)) & MASK)
    found: dict[int, int] = {}
    for left, right in zip(hashes, [*hashes[1:], 0x165667B1], strict=False):
        for gram in (left * 0x85EBCA6B, left * 0xC2B2AE35 + right * 0x27D4EB2F):
            bucket = (gram & MASK) >> (32 - text.BUCKET_BITS)
            found[bucket] = found.get(bucket, 0) + 1
    return found


def row(ngrams: text.Ngrams, index: int) -> dict[int, int]:
    part = slice(int(ngrams.offsets[index]), int(ngrams.offsets[index + 1]))
    return dict(zip(ngrams.buckets[part].tolist(), ngrams.counts[part].tolist(), strict=True))


def surface_of(prompt: str) -> dict[str, float]:
    _, surface = text.analyse(text.encode([prompt]))
    return dict(zip(text.SURFACE_NAMES, surface[0].tolist(), strict=True))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_one_prompt_gives_the_plain_ngrams(prompt: str) -> None:
    ngrams, _ = text.analyse(text.encode([prompt]))
    assert row(ngrams, 0) == plain_ngrams(prompt)


def test_a_batch_gives_each_prompt_its_own_ngrams() -> None:
    ngrams, surface = text.analyse(text.encode(PROMPTS))
    assert len(ngrams.offsets) == len(PROMPTS) + 1
    for index, prompt in enumerate(PROMPTS):
        assert row(ngrams, index) == plain_ngrams(prompt)
        alone = text.analyse(text.encode([prompt]))[1]
        np.testing.assert_array_equal(surface[index], alone[0])


def test_case_and_digits_do_not_matter_but_order_does() -> None:
    def grams(prompt: str) -> dict[int, int]:
        return row(text.analyse(text.encode([prompt]))[0], 0)

    assert grams("Route 66, please") == grams("ROUTE 10 PLEASE!")
    assert grams("dog bites man") != grams("man bites dog")
    assert set(grams("dog")) != set(grams("god"))


def test_chunks_cover_the_batch_in_order_and_stay_small() -> None:
    rows = text.encode(["word " * 100] * 600 + ["x" * 300_000] + ["tail"] * 3)
    parts = list(text.chunks(rows))
    assert [one for part in parts for one in part] == rows
    assert all(len(part) <= 256 for part in parts)
    assert all(sum(map(len, part)) <= 1 << 17 or len(part) == 1 for part in parts)
    assert list(text.chunks([])) == []


@pytest.mark.parametrize(
    ("name", "prompt", "count"),
    [
        ("log length", "h\u00e9", 3),
        ("log digits", "7 of 99", 3),
        ("log newlines", "a\nb\n\nc", 3),
        ("log question marks", "why? how??", 3),
        ("log option letters", "Choose: A) x (B) y\nC. z  J: end", 4),
        ("log option letters", "NASA) is no option, nor is a) or K)", 0),
        ("log option letters", "A) starts the prompt", 1),
        ("log code words", "Import numpy; return self.undefined", 3),
        ("log math symbols", "$x^2$ \\frac{a} \u2211", 7),
        ("log operators", "a+b-c*d/e<f>g=h%i&j|k", 10),
        ("log quotes", "\"a\" 'b' `c`", 6),
        ("log capitals", "Hello WORLD", 6),
        ("log commas", "a,b,,c", 3),
        ("log underscores", "snake_case_name", 2),
    ],
)
def test_a_count_is_the_log_of_one_plus_it(name: str, prompt: str, count: int) -> None:
    assert surface_of(prompt)[name] == pytest.approx(np.log1p(count))


@pytest.mark.parametrize(
    ("prompt", "mean", "ends"),
    [
        ("four five", 4.0, 0.0),
        ("is it so? \n", 2.0, 1.0),
        ("? no", 2.0, 0.0),
        ("", 0.0, 0.0),
        ("a" * 1000, text.LONGEST_MEAN_WORD, 0.0),
    ],
)
def test_word_length_and_final_question_mark(prompt: str, mean: float, ends: float) -> None:
    surface = surface_of(prompt)
    assert surface["mean word length"] == pytest.approx(mean)
    assert surface["ends with a question mark"] == ends


def test_every_code_word_counts() -> None:
    for word in text._CODE_WORDS.split():
        assert surface_of(word.upper())["log code words"] == pytest.approx(np.log(2)), word


def test_a_megabyte_keeps_the_hashes_and_takes_linear_time() -> None:
    phrase = "alpha beta gamma delta "
    short = row(text.analyse(text.encode([phrase]))[0], 0)
    started_s = time.process_time()
    long = row(text.analyse(text.encode([phrase * 45_000]))[0], 0)
    assert time.process_time() - started_s < 2.0
    assert set(short) <= set(long)
    # One bigram more: the last word now also stands before the first.
    assert len(long) == len(short) + 1
    assert sum(long.values()) == 2 * 4 * 45_000


def test_the_constants_are_those_that_logged_decisions_used() -> None:
    ngrams, _ = text.analyse([b"hello world"])
    assert row(ngrams, 0) == plain_ngrams("hello world")
    assert sorted(row(ngrams, 0)) == [1681, 5334, 6677, 7601]
    assert text.fingerprint()[:12] == "c93ba8c1a420"
