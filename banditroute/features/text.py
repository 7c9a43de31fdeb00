"""Turn prompts into word n-grams and surface counts, over the UTF-8 bytes of a whole batch at once.

Routing does this for every request, so the work is a few passes in C (byte translation, numpy) and
never a Python loop over words or characters. The result must never depend on the process, the
platform or the other prompts of the batch: hashes are fixed integer arithmetic, not Python's
`hash`. No content is an error: empty, huge, binary and lone-surrogate prompts have features.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BUCKET_BITS = 13
BUCKETS = 1 << BUCKET_BITS
SURFACE_NAMES = (
    "log length",
    "log digits",
    "log newlines",
    "log question marks",
    "log option letters",
    "log code words",
    "log math symbols",
    "log operators",
    "log quotes",
    "log capitals",
    "log commas",
    "log underscores",
    "mean word length",
    "ends with a question mark",
)
LONGEST_MEAN_WORD = 20.0

_CODE_WORDS = (
    "api array assert async await bool class code compile const css def elif enum float func "
    "function html import include int integer java javascript json lambda malloc nullptr php "
    "print printf println public python regex return self sql static str stdio string struct "
    "tuple typescript var vector void xml"
)

# Raise it when the algorithm changes while all constants below stay the same.
_REVISION = 1
_MULTIPLIER = 0x9E3779B1
_INVERSE = pow(_MULTIPLIER, -1, 1 << 32)
_UNIGRAM = np.uint32(0x85EBCA6B)
_LEFT = np.uint32(0xC2B2AE35)
_RIGHT = np.uint32(0x27D4EB2F)
_END = np.uint32(0x165667B1)
_SHIFT = np.uint32(32 - BUCKET_BITS)
_CHUNK_BYTES = 1 << 17
_CHUNK_ROWS = 256

_DIGITS = string.digits.encode()
_LOWER = string.ascii_lowercase.encode()
_UPPER = string.ascii_uppercase.encode()
_HIGH = bytes(range(128, 256))
# Byte classes of the surface counts; 0 is everything else. Words are digits, capitals and letters.
_CLASSES: tuple[bytes, ...] = (
    _DIGITS,
    b"\n",
    b"?",
    b"\\^${}",
    b"+-*/<>=%&|",
    b"\"'`",
    _UPPER,
    b",",
    b"_",
    _LOWER + _HIGH,
)
_CLASS_COUNT = len(_CLASSES) + 1
# The first two bytes of U+2200 to U+223F: quantifiers, sums, roots, integrals, set membership.
_MATH_BLOCK = b"\xe2\x88"


def _table(default: bytes | None, *pairs: tuple[bytes, bytes]) -> bytes:
    table = bytearray(default * 256 if default is not None else range(256))
    for source, target in pairs:
        for position, byte in enumerate(source):
            table[byte] = target[position % len(target)]
    return bytes(table)


# All digits are one symbol: how a number is written says more about a prompt than its value.
_FOLD = _table(b"\0", (_LOWER, _LOWER), (_UPPER, _LOWER), (_DIGITS, b"0"), (_HIGH, _HIGH))
_CLASS = _table(b"\0", *((members, bytes([k + 1])) for k, members in enumerate(_CLASSES)))
_OPTION = _table(
    b" ", (_LOWER + _UPPER + _DIGITS + _HIGH, b"w"), (b"ABCDEFGHIJ", b"A"), (b").:", b")")
)


class Ngrams(NamedTuple):
    """Distinct word (1,2)-grams of a batch, in compressed row form.

    Attributes
    ----------
    buckets : uint32[m]
        Bucket of each distinct n-gram, in 0 .. BUCKETS - 1, ascending inside a row.
    counts : int64[m]
        How often it occurs in its row.
    offsets : int64[n + 1]
        Row i owns `buckets[offsets[i]:offsets[i + 1]]`.
    """

    buckets: NDArray[np.uint32]
    counts: NDArray[np.int64]
    offsets: NDArray[np.int64]


def encode(prompts: Sequence[str]) -> list[bytes]:
    """Return the UTF-8 bytes of each prompt; lone surrogates, which JSON can carry, are kept."""
    return [prompt.encode("utf-8", "surrogatepass") for prompt in prompts]


def chunks(rows: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut a batch into consecutive parts, so that temporary arrays stay small.

    Parameters
    ----------
    rows : sequence of bytes
        Encoded prompts.

    Yields
    ------
    sequence of bytes
        At most 256 rows and about 128 KiB; a longer row is alone.
    """
    start = size = 0
    for index, row in enumerate(rows):
        if index > start and (size + len(row) > _CHUNK_BYTES or index - start == _CHUNK_ROWS):
            yield rows[start:index]
            start, size = index, 0
        size += len(row) + 1
    if rows:
        yield rows[start:]


def fingerprint() -> str:
    """Return a hash of every constant that shapes the n-grams and surface features."""
    parts = (_REVISION, BUCKET_BITS, SURFACE_NAMES, LONGEST_MEAN_WORD, _CODE_WORDS, _MULTIPLIER)
    mixers = (int(_UNIGRAM), int(_LEFT), int(_RIGHT), int(_END))
    tables = (_FOLD, _CLASS, _OPTION, _MATH_BLOCK)
    return hashlib.sha256(repr((parts, mixers, tables)).encode()).hexdigest()


@lru_cache(maxsize=1)
def _cached_powers() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    return _make_powers(2 * _CHUNK_BYTES)


def _make_powers(count: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    tables = []
    for base in (_MULTIPLIER, _INVERSE):
        steps = np.full(count, base, dtype=np.uint32)
        steps[0] = 1
        tables.append(np.multiply.accumulate(steps, dtype=np.uint32))
    return tables[0], tables[1]


def _words(rows: Sequence[bytes], joined: bytes) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return the hash of each word, and the offsets of the rows' words.

    A word's hash is the polynomial `sum byte_i p^i` modulo 2^32 over its own positions: the
    difference of a running sum over the whole batch, times the inverse power of where it begins.
    """
    size = len(joined)
    folded = np.frombuffer(joined.translate(_FOLD), dtype=np.uint8)
    powers, inverses = _cached_powers() if size <= 2 * _CHUNK_BYTES else _make_powers(size)
    inside = folded.astype(np.bool_)
    edges = (inside[1:] != inside[:-1]).nonzero()[0]
    sums = np.multiply(folded, powers[:size], dtype=np.uint32).cumsum(dtype=np.uint32).take(edges)
    starts = edges[0::2]
    hashes = (sums[1::2] - sums[0::2]) * inverses.take(starts)
    if len(rows) == 1:
        return hashes, np.array([0, len(hashes)])
    ends = np.cumsum([0, *(len(row) + 1 for row in rows)])
    return hashes, starts.searchsorted(ends)


def _join(rows: Sequence[bytes]) -> bytes:
    return b" " + b" ".join(rows) + b" "


@lru_cache(maxsize=1)
def _code_hashes() -> NDArray[np.uint32]:
    words = _CODE_WORDS.encode()
    hashes, _ = _words([words], _join([words]))
    table = np.zeros(BUCKETS, dtype=np.uint32)
    table[(hashes * _UNIGRAM) >> _SHIFT] = hashes
    return table


def analyse(rows: Sequence[bytes]) -> tuple[Ngrams, NDArray[np.float64]]:
    """Return the n-grams and raw surface features of one chunk of prompts.

    Parameters
    ----------
    rows : sequence of bytes
        n encoded prompts, one part of `chunks`. Up to 2^18 rows are correct, with memory in
        proportion.

    Returns
    -------
    ngrams : Ngrams
        Each word gives its unigram and the bigram with the next word or the end of the prompt.
    surface : float64[n, 14]
        The features of `SURFACE_NAMES`, not standardised; logs are `log(1 + count)` in bytes.
    """
    count = len(rows)
    joined = _join(rows)
    hashes, offsets = _words(rows, joined)
    grams = np.empty((len(hashes), 2), dtype=np.uint32)
    single = hashes * _UNIGRAM
    grams[:, 0] = single
    single >>= _SHIFT
    is_code = _code_hashes().take(single) == hashes
    if len(hashes):
        following = np.empty_like(hashes)
        following[:-1] = hashes[1:]
        if count == 1:
            following[-1] = _END
        else:
            filled = offsets[1:] > offsets[:-1]
            following[offsets[1:][filled] - 1] = _END
        grams[:, 1] = hashes * _LEFT + following * _RIGHT
    keys = grams.reshape(-1)
    keys >>= _SHIFT
    if count == 1:
        code_words = np.array([np.count_nonzero(is_code)])
    else:
        code_words = np.diff(np.concatenate(([0], is_code.cumsum())).take(offsets))
        keys |= np.repeat(np.arange(count, dtype=np.uint32) << BUCKET_BITS, 2 * np.diff(offsets))
    ngrams = _distinct(keys, count)
    return ngrams, _surface(rows, joined, offsets, code_words)


def surface(prompts: Sequence[str]) -> NDArray[np.float64]:
    """Return the raw surface features of prompts, see `analyse`.

    Parameters
    ----------
    prompts : sequence of str
        n prompts, at least one.

    Returns
    -------
    float64[n, 14]
        Not standardised.
    """
    return np.concatenate([analyse(rows)[1] for rows in chunks(encode(prompts))])


def _distinct(keys: NDArray[np.uint32], count: int) -> Ngrams:
    keys.sort()
    fresh = np.empty(len(keys) + 1, dtype=np.bool_)
    fresh[0] = fresh[-1] = True
    np.not_equal(keys[1:], keys[:-1], out=fresh[1:-1])
    bounds = fresh.nonzero()[0]
    if not len(keys):
        bounds = bounds[:1]
    counts = bounds[1:] - bounds[:-1]
    keys = keys.take(bounds[:-1])
    if count == 1:
        return Ngrams(keys, counts, np.array([0, len(keys)]))
    offsets = keys.searchsorted(np.arange(count + 1, dtype=np.uint32) << BUCKET_BITS)
    keys &= np.uint32(BUCKETS - 1)
    return Ngrams(keys, counts, offsets)


def _surface(
    rows: Sequence[bytes],
    joined: bytes,
    offsets: NDArray[np.int64],
    code_words: NDArray[np.int64],
) -> NDArray[np.float64]:
    classes = np.frombuffer(joined.translate(_CLASS), dtype=np.uint8)
    options = joined.translate(_OPTION)
    raw = []
    begin = 1
    for row, words, code in zip(
        rows, (offsets[1:] - offsets[:-1]).tolist(), code_words.tolist(), strict=True
    ):
        end = begin + len(row)
        counts = np.bincount(classes[begin:end], minlength=_CLASS_COUNT).tolist()
        _, digits, lines, marks, maths = counts[:5]
        operators, quotes, capitals, commas, underscores, letters = counts[5:]
        raw.append(
            (
                len(row),
                digits,
                lines,
                marks,
                options.count(b" A)", begin - 1, end),
                code,
                maths + row.count(_MATH_BLOCK),
                operators,
                quotes,
                capitals,
                commas,
                underscores,
                min((digits + capitals + letters) / max(words, 1), LONGEST_MEAN_WORD),
                row.rstrip().endswith(b"?"),
            )
        )
        begin = end + 1
    surface = np.array(raw, dtype=np.float64).reshape(len(rows), len(SURFACE_NAMES))
    np.log1p(surface[:, :12], out=surface[:, :12])
    return surface
