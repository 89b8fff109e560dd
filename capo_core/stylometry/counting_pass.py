"""The compiled pass over characters and tokens: what only the order of them in a text can tell.

All texts of a slice stand one after the other in one array, a line feed after each; `bounds` [n + 1] says where each
begins and the last ends. Every function counts in integers, text by text, so that neither slices nor threads change a
result. numba compiles them at first use and keeps the machine code beside this file, or in NUMBA_CACHE_DIR; it notices
changes of this file only, so that nothing here may depend on another. Importing this module loads numba: do it inside
functions.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
from numba import njit

WORD, SPACE, LETTER, LOWER = 1, 2, 4, 8
UNDERSCORE, APOSTROPHE, FULL_STOP = 16, 32, 64
SENTENCE_MARK, CLOSER = 128, 256
OPENING_QUOTE, CLOSING_QUOTE = 512, 1024
"""Kinds of characters, flags. Closer: may stand between the mark that ends a sentence and the white space after it."""

_TESTED = {WORD: str.isalnum, SPACE: str.isspace, LETTER: str.isalpha, LOWER: str.islower}
"""As Python's re: a letter or digit is `[^\\W_]`, white space `\\s`."""
_LISTED = {
    UNDERSCORE: "_",
    APOSTROPHE: "'’",
    FULL_STOP: ".",
    SENTENCE_MARK: ".!?…",
    CLOSER: "\"'”’»)]",
    OPENING_QUOTE: "\"“„«'‘",
    CLOSING_QUOTE: "\"”“»'’",
}

_compiled = njit(cache=True, nogil=True)
_HASH_PRIME = np.uint64(0x100000001B3)
_HASH_START = np.uint64(0xCBF29CE484222325)
_HALF = np.uint64(32)


@cache
def character_kinds() -> np.ndarray:
    """Return the kinds of every code point, the sum of its flags, uint16 [0x110000]."""
    characters = [chr(code) for code in range(sys.maxunicode + 1)]
    kinds = np.zeros(len(characters), np.uint16)
    for flag, test in _TESTED.items():
        kinds[np.fromiter(map(test, characters), bool, len(characters))] |= flag
    for flag, listed in _LISTED.items():
        kinds[[ord(character) for character in listed]] |= flag
    return kinds


@_compiled
def find_kinds(codes, table):
    """Return the kinds of every character."""
    kinds = np.empty(len(codes), table.dtype)
    for i in range(len(codes)):
        kinds[i] = table[codes[i]]
    return kinds


@_compiled
def split_tokens(codes, kinds, bounds):
    """Return the spans and hashes of all tokens, and the bounds of each text's tokens.

    A token is a run of letters or digits, with single apostrophes between two of them, or any other character but white
    space. The hash is FNV-1a over its code points (Fowler, Noll, Vo; 64-bit offset and prime), its halves folded.

    Returns:
        spans: where each token starts and ends [tokens, 2]; hashes [tokens]; bounds [texts + 1].
    """
    most = _bound_tokens(kinds)
    spans, hashes = np.empty((most, 2), np.int64), np.empty(most, np.uint64)
    n, i = 0, 0
    while i < len(kinds):
        if kinds[i] & SPACE:
            i += 1
            continue
        spans[n, 0] = i
        value = (_HASH_START ^ np.uint64(codes[i])) * _HASH_PRIME
        in_word = kinds[i] & WORD
        i += 1
        while in_word and (kinds[i] & WORD or (kinds[i] & APOSTROPHE and kinds[i - 1] & WORD and kinds[i + 1] & WORD)):
            value = (value ^ np.uint64(codes[i])) * _HASH_PRIME
            i += 1
        spans[n, 1] = i
        hashes[n] = value ^ (value >> _HALF)
        n += 1
    return spans[:n], hashes[:n], np.searchsorted(spans[:n, 0], bounds)


@_compiled
def _bound_tokens(kinds):
    """Return a number that the tokens are no more than: what words joined by an apostrophe would be on their own."""
    n = 0
    for i in range(len(kinds)):
        n += kinds[i] & SPACE == 0 and (kinds[i] & WORD == 0 or i == 0 or kinds[i - 1] & WORD == 0)
    return n


@_compiled
def number_tokens(codes, spans, hashes):
    """Return each token's number, equal for equal tokens and rising by first appearance, and the first span of each.

    A hash table with open addressing and linear probing, at most half full; what it finds is compared in full.
    """
    numbers, first, seen = np.empty(len(spans), np.int32), np.empty_like(spans), np.empty_like(hashes)
    slots = np.full(1 << 12, -1, np.int32)
    n = 0
    for token in range(len(spans)):
        slot = np.int64(hashes[token] & np.uint64(len(slots) - 1))
        while slots[slot] >= 0:
            number = slots[slot]
            if seen[number] == hashes[token] and _equal(
                codes, first[number, 0], first[number, 1], spans[token, 0], spans[token, 1]
            ):
                break
            slot = (slot + 1) & (len(slots) - 1)
        if slots[slot] < 0:
            slots[slot], first[n, 0], first[n, 1], seen[n] = n, spans[token, 0], spans[token, 1], hashes[token]
            n += 1
        numbers[token] = slots[slot]
        if 2 * n > len(slots):
            slots = _fill_slots(seen[:n], 4 * len(slots))
    return numbers, first[:n]


@_compiled
def _equal(codes, start, end, other_start, other_end):
    """Return whether two spans hold the same code points."""
    if end - start != other_end - other_start:
        return False
    for i in range(end - start):  # noqa: SIM110 - the compiler takes no generator
        if codes[start + i] != codes[other_start + i]:
            return False
    return True


@_compiled
def _fill_slots(hashes, size):
    """Return a hash table of a size, a power of two, that holds the numbers of distinct tokens by their hashes."""
    slots = np.full(size, -1, np.int32)
    for number in range(len(hashes)):
        slot = np.int64(hashes[number] & np.uint64(size - 1))
        while slots[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        slots[slot] = number
    return slots


@_compiled
def sum_tokens(numbers, bounds, counts):
    """Return for each text the sum of its tokens' counts, [texts, counts], given those of each distinct token."""
    sums = np.zeros((len(bounds) - 1, counts.shape[1]), np.int32)
    for text in range(len(sums)):
        for number in numbers[bounds[text] : bounds[text + 1]]:
            for count in range(counts.shape[1]):
                sums[text, count] += counts[number, count]
    return sums


@_compiled
def keep_words(numbers, bounds, words):
    """Return the words among the tokens, given that of each distinct token, and the bounds of each text's words."""
    kept, word_bounds = np.empty(len(numbers), np.int32), np.zeros(len(bounds), np.int64)
    n = 0
    for text in range(len(bounds) - 1):
        for number in numbers[bounds[text] : bounds[text + 1]]:
            if words[number] >= 0:
                kept[n] = words[number]
                n += 1
        word_bounds[text + 1] = n
    return kept[:n], word_bounds


@_compiled
def count_distinct(words, bounds, n_distinct):
    """Return the number of distinct words of each text, words being numbers below `n_distinct`."""
    distinct, last_seen = np.zeros(len(bounds) - 1, np.int32), np.full(n_distinct, -1, np.int32)
    for text in range(len(bounds) - 1):
        for word in words[bounds[text] : bounds[text + 1]]:
            distinct[text] += last_seen[word] != text
            last_seen[word] = text
    return distinct


@_compiled
def count_sentences(kinds):
    """Return the sentences of one text: pieces with a word, cut where marks and closers stand before space or end."""
    n, has_word, i = 0, False, 0
    while i < len(kinds):
        if not kinds[i] & SENTENCE_MARK:
            has_word = has_word or kinds[i] & WORD != 0
            i += 1
            continue
        while i < len(kinds) and kinds[i] & SENTENCE_MARK:
            i += 1
        while i < len(kinds) and kinds[i] & CLOSER:
            i += 1
        if i == len(kinds) or kinds[i] & SPACE:
            n += has_word
            has_word = False
    return n + has_word


@_compiled
def count_quoted_words(kinds):
    """Return the words of one text from a quotation mark after no word character to the next that precedes none."""
    n, start = 0, 0
    while start < len(kinds):
        if kinds[start] & OPENING_QUOTE and (start == 0 or not kinds[start - 1] & (WORD | UNDERSCORE)):
            end = start + 2  # something stands between the two
            while end < len(kinds) and not _ends_quotation(kinds, end):
                end += 1
            if end >= len(kinds):
                break  # no quotation that begins later ends either
            n += _count_words(kinds[start + 1 : end])
            start = end
        start += 1
    return n


@_compiled
def _ends_quotation(kinds, i):
    """Return whether a closing quotation mark stands at `i` and no word character after it."""
    return kinds[i] & CLOSING_QUOTE != 0 and (i + 1 == len(kinds) or not kinds[i + 1] & (WORD | UNDERSCORE))


@_compiled
def _count_words(kinds):
    """Return the number of words: what begins with a letter or digit that does not go on another word."""
    n = 0
    for i in range(len(kinds)):
        if kinds[i] & WORD:
            goes_on = i > 0 and kinds[i - 1] & WORD
            joined = i > 1 and kinds[i - 1] & APOSTROPHE and kinds[i - 2] & WORD
            n += not goes_on and not joined
    return n


@_compiled
def count_pieces(kinds, bounds):
    """Return the sentences and the quoted words of each text, [texts, 2]."""
    pieces = np.zeros((len(bounds) - 1, 2), np.int32)
    for text in range(len(bounds) - 1):
        own = kinds[bounds[text] : bounds[text + 1]]
        pieces[text, 0] = count_sentences(own)
        pieces[text, 1] = count_quoted_words(own)
    return pieces


@_compiled
def describe_ends(kinds, bounds):
    """Return how each text begins and ends, [texts, 5].

    Columns: characters without the white space around them; whether white space leads; whether it trails; whether the
    last other character is a full stop; whether the first letter is lower-case.
    """
    ends = np.zeros((len(bounds) - 1, 5), np.int32)
    for text in range(len(bounds) - 1):
        first, last = bounds[text], bounds[text + 1] - 2  # a line feed follows
        while first <= last and kinds[first] & SPACE:
            first += 1
        while last > first and kinds[last] & SPACE:
            last -= 1
        if first > last:
            continue
        letter = first
        while letter < last and not kinds[letter] & LETTER:
            letter += 1
        ends[text, 0] = last + 1 - first
        ends[text, 1] = first > bounds[text]
        ends[text, 2] = last + 2 < bounds[text + 1]
        ends[text, 3] = kinds[last] & FULL_STOP != 0
        ends[text, 4] = kinds[letter] & LOWER != 0
    return ends


@_compiled
def count_copied(words, bounds, read):
    """Return how many words of each text stand in one of the texts it read, and the longest run of them, [texts, 2].

    Args:
        words: a number for each distinct word, of all texts.
        bounds: of each text's words.
        read: numbers of the texts that each of the first len(read) texts is compared with, [texts, k].
    """
    copied = np.zeros((len(read), 2), np.int32)
    longest = np.max(bounds[1:] - bounds[:-1])
    is_copied, runs = np.empty(longest, np.bool_), np.empty(longest, np.int32)
    for text in range(len(read)):
        own = words[bounds[text] : bounds[text + 1]]
        is_copied[: len(own)] = False
        for other in read[text]:
            run = _mark_copied(own, words[bounds[other] : bounds[other + 1]], is_copied, runs)
            copied[text, 1] = max(copied[text, 1], run)
        copied[text, 0] = np.sum(is_copied[: len(own)])
    return copied


@_compiled
def _mark_copied(own, other, is_copied, runs):
    """Return the longest run of `own` that stands unbroken in `other`; mark in `is_copied` the words that stand there.

    runs[i] = 1 + the run that ended at i - 1 with the word before in `other`, where own[i] is this word of it, else 0.
    """
    longest = 0
    runs[: len(own)] = 0
    for word in other:
        before = 0
        for i in range(len(own)):
            ended = runs[i]
            runs[i] = before + 1 if own[i] == word else 0
            before = ended
            if runs[i]:
                is_copied[i] = True
                longest = max(longest, runs[i])
    return longest
