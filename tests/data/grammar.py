"""What can be wrong with a sentence of a refusal in English, as far as rules can tell. A reader finds the rest."""

from __future__ import annotations

import re

WORDS_A_SENTENCE = 28
_FAULTS = {
    "a doubled word": r"(?i)\b([a-z]+) \1\b",
    "the same said twice": r"(?i)\b(\w+ \w+) or (?:\w+ )?\1\b|\binstead\b.*\binstead\b.*\binstead\b",
    "a for an": r"(?i)\ba (?=[aeiou])(?!uni|use|usu|eu|one\b)",
    "an for a": r"(?i)\ban (?![aeiou8]|hour|honest|heir|x-)",
    "a question inside": r"(?i)\b(?:ask|learn|know|see) (?:where|what|how|why|when|who) (?:do|does|did|is|are|can)\b",
    "a wrong form behind its verb": r"\b(?:I can|glad to|do is) (?:\w+ing|\w+ed|to|can|I|an?|the)\b",
    "a verb without its object": r"\b(?:with|by|on|for|from|of|to|under)[.:,]",
    "an unfilled place": r"[{}]",
    "broken punctuation": r"  | [.,:;]|\.\.|,\.|[.,:](?!com)[A-Za-z]|[^.]$",
    "a small letter first": r"^[a-z]|\. [a-z](?!indahelpline)",
}
_ECHOED = re.compile(r"(?i)\b(?:my|our|his|her|their|its|me|us|him|them|he|she|they|we|myself|yourself|mine|yours)\b")


def faults(sentences: str, subject: str, request: str = "") -> list[str]:
    """Names of what is wrong with a refusal or a part of one; `subject` is what it says that the request is about."""
    found = [name for name, pattern in _FAULTS.items() if re.search(pattern, sentences)]
    if any(len(sentence.split()) > WORDS_A_SENTENCE for sentence in re.split(r"(?<=\.) ", sentences)):
        found.append("a long sentence")
    if _ECHOED.search(subject.replace("for who they are", "").replace("for their", "for")):
        found.append("an echoed pronoun")
    if _shared(sentences, request, 5):
        found.append("the request repeated")
    return found


def _shared(text: str, request: str, most: int) -> bool:
    """Whether so many words of the request stand in the text in their order."""
    said = " ".join(re.findall(r"\w+", text.lower()))
    words = re.findall(r"\w+", request.lower())
    return any(f" {' '.join(words[at : at + most])} " in f" {said} " for at in range(len(words) - most + 1))
