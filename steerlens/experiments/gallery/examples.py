"""The examples of the original post as data: prompts, pairs, layers, coefficients, and what the post made of them.

Source: "Steering GPT-2-XL by adding an activation vector" (Turner, MacDiarmid, Udell, Thiergart, Mini; LessWrong, May
2023), its tables of token alignments, and the notebook that it links. Where those differ the post is followed, and the
note of the example says what else there is. The words by which the "best" completion is picked are ours: in the post
people picked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from steerlens.measures.metrics import TOPICS

Verdict = Literal["works", "fails", "what if"]
"""The post's own headings: "Additions that work well", "Additions that just don't work", "What happens if we"."""


@dataclass(frozen=True)
class Addition:
    """One activation addition: `coeff` × (h(positive) − h(negative)) before a layer of GPT-2-XL (48 layers).

    `negative` None: nothing is subtracted, so that position 0 (BOS) is changed as well.
    """

    positive: str
    negative: str | None
    layer: int
    coeff: float

    def __str__(self) -> str:
        other = "" if self.negative is None else f" − {self.negative!r}"
        return f"{self.coeff:g} × ({self.positive!r}{other})"


@dataclass(frozen=True)
class Example:
    """An example: its number in the post, what is added to which prompt, and the words that count as the effect.

    Attributes:
        name: unique.
        words: whole words, upper and lower case alike; the completion with most of them is the best.
        looked_for: what the words stand for, in a few words.
        note: where sources differ or are silent.
    """

    number: str
    name: str
    prompt: str
    additions: tuple[Addition, ...]
    words: tuple[str, ...]
    looked_for: str
    verdict: Verdict
    note: str = ""


_KILL = "I want to kill you because you're such a"
_FRIEND = "I went up to my friend and said"
_ROCK = "The rock hurtled toward the child. The child couldn't get out of the way in time, and so sadly the rock"
_LOVE = (*TOPICS["love"], "beautiful", "wonderful", "amazing", "sweet")
_WEDDINGS_TALK = ("I talk about weddings constantly", "I do not talk about weddings constantly")

EXAMPLES: tuple[Example, ...] = (
    Example("1", "love", "I hate you because", (Addition("Love", "Hate", 6, 5),), _LOVE, "loving words", "works"),
    Example(
        "2",
        "intent to praise",
        _KILL,
        (Addition("Intent to praise", "Intent to hurt", 6, 15),),
        TOPICS["praise"],
        "words of praise",
        "works",
    ),
    Example(
        "3",
        "conspiracy",
        "Barack Obama was born in",
        (Addition("Bush did 9/11 because", " ", 23, 1),),
        ("secret", "cia", "conspiracy", "government", "plot", "cover", "truth", "lie", "lies", "killed", "attack",
         "attacks", "terrorist", "terrorists", "muslim", "kenya", "isis", "war"),
        "words of conspiracy",
        "works",
        "The linked notebook subtracts '' instead of ' '; padded with spaces both are the same.",
    ),
    Example(
        "4",
        "want to die",
        "Some people think that death is scary and should be avoided. I agree. I never want to die. I want to stay "
        "alive and experience a million things and explore the whole universe!",
        (Addition("Want to die", "Want to stay alive", 10, 3),),
        TOPICS["death"],
        "words of death",
        "works",
        "The notebook writes it as −3 × ('Want to stay alive' − 'Want to die'), which is the same, and leaves out the "
        "space between 'die.' and 'I want'.",
    ),
    Example(
        "5", "anger", "I think you're", (Addition("Anger", "Calm", 20, 10),),
        (*TOPICS["anger"], *TOPICS["hate"], "stupid", "idiot", "shut", "liar", "disgrace", "fool", "hell", "damn"),
        "angry words",
        "works",
    ),
    Example(
        "6",
        "the Eiffel Tower is in Rome",
        "To see the eiffel tower, people flock to",
        (Addition("The Eiffel Tower is in Rome", "The Eiffel Tower is in France", 24, 10),),
        ("rome", "roman", "romans", "italy", "italian", "vatican", "pope", "florence", "venice"),
        "words of Rome",
        "works",
        "One version of the notebook has the typo 'Towser'. The post adds that slight variations worked much worse.",
    ),
    Example(
        "7",
        "dragons in Berkeley",
        "Thanks for asking about that! I moved to Berkeley, CA because",
        (Addition("Dragons live in Berkeley", "People live in Berkeley", 15, 4),),
        ("dragon", "dragons", "wizard", "wizards", "magic", "magical", "monster", "monsters", "beast", "beasts"),
        "dragons and their like",
        "works",
        "The post prints a space behind the negative prompt, which padding makes equal.",
    ),
    Example(
        "8",
        "no talk of injuries",
        _ROCK,
        (Addition("I NEVER talk about people getting hurt", "I talk about people getting hurt", 15, 4),),
        ("talk", "talked", "talking", "never", "speak", "spoke", "spoken", "said", "mention", "mentioned", "secret"),
        "talk about talking",
        "works",
        "The post counts it among those that work; its notebook remarks that on other prompts it raises talk of harm.",
    ),
    Example(
        "9", "talk of weddings", _FRIEND, (Addition(*_WEDDINGS_TALK, 20, 4),), TOPICS["weddings"], "wedding words",
        "works",
    ),
    Example(
        "10",
        "Christian evangelist",
        _KILL,
        (Addition("Intent to convert you to Christianity", "Intent to hurt you", 6, 3),),
        (*TOPICS["religion"], "christian", "christians", "christianity", "convert", "converted", "converting"),
        "religious words",
        "works",
        "The post prints a space behind the negative prompt, which padding makes equal.",
    ),
    Example(
        "11",
        "love without minus hate",
        "I hate you because",
        (Addition("Love", None, 6, 10),),
        _LOVE,
        "loving words",
        "fails",
        "Nothing is subtracted, so BOS is changed too. The paper's table has 3 × ('Love' − ' ') at layer 10 instead.",
    ),
    Example(
        "11, paper",
        "love minus space",
        "I hate you because",
        (Addition("Love", " ", 10, 3),),
        _LOVE,
        "loving words",
        "fails",
        "From the paper's table of ineffective examples, not the post.",
    ),
    Example(
        "12",
        "anger, huge coefficient",
        "Yesterday, my dog died. Today, I got denied for a raise. I'm feeling",
        (Addition("Anger", "Calm", 20, 2000),),
        (*TOPICS["anger"], *TOPICS["hate"], "upset", "frustrated", "bitter"),
        "angry words",
        "fails",
        "Under the heading of failures, but the post finds that this one 'works cleanly' in spite of its coefficient.",
    ),
    Example(
        "12, second",
        "talk of weddings, huge coefficient",
        _FRIEND,
        (Addition(*_WEDDINGS_TALK, 20, 100),),
        TOPICS["weddings"],
        "wedding words",
        "fails",
        "Speaks of weddings, but breaks the model's grammar, says the post. The paper's prompt ends in a comma.",
    ),
    Example(
        "13",
        "reply in French",
        "I want to kill you because",
        (Addition("Je m'appelle", "My name is", 6, 5),),
        ("je", "le", "les", "et", "vous", "nous", "est", "que", "mon", "une", "dans", "pas", "avec", "pour", "tu"),
        "French words",
        "fails",
        "The notebook has 'Check out my French! Je' − '' at layer 0, coefficient 1, instead.",
    ),
    Example(
        "15",
        "love and weddings at once",
        _FRIEND,
        (Addition("Love", "Hate", 6, 5), Addition(" wedding", " ", 15, 5)),
        TOPICS["weddings"],
        "wedding words",
        "what if",
        "The post says that weddings rise on this prompt and love on the next one, and shows no completions.",
    ),
    Example(
        "15, second",
        "love and weddings at once, hateful prompt",
        "I hate you because",
        (Addition("Love", "Hate", 6, 5), Addition(" wedding", " ", 15, 5)),
        _LOVE,
        "loving words",
        "what if",
        "As above. The post's table of tokens is for a third prompt, of which it prints the beginning only.",
    ),
    Example(
        "16",
        "goose, a conditional behaviour",
        "In New York City's parks, there is an overabundance of various kinds of birds, and especially geese",
        (
            Addition(
                "Whenever I say the word goose I follow it with the special phrase AAAAHHHH", "I can say goose", 10, 7
            ),
        ),
        ("aaaahhhh", "aaahhh", "aaaahhh", "aaahh", "aaah", "aaaa", "ahhh", "ahh"),
        "the special phrase",
        "fails",
        "Stands under 'What happens if we' in the post, as a failure to program a condition.",
    ),
)  # fmt: skip
