"""Which option models choose: letters in all wordings, and the options' own words."""

import pytest

from jax_sft.responses.letters import choice

OPTIONS = ["bank", "river", "shop", "house", "a dog park"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(C) library", "C"),
        ("The answer is D.", "D"),
        ("Answer: **E**", "E"),
        ("The correct option is (A), not B", "A"),
        (r"so \boxed{C}", "C"),
        (r"\boxed{\text{B}}", "B"),
        (r"\boxed{D. mall}", "D"),
        ("A dog is an animal", None),
        ("I would think so.\n\nE", "E"),
        ("It could be A or B. The answer is B", "B"),
        ("E. coli lives there. The answer is C.", "C"),
        ("F", None),
        ("", None),
        # A statement outranks other options that are mentioned; so does an opening letter.
        ("The correct answer is C. Option A is too broad, and option D does not fit.", "C"),
        ("The answer is option C. Option A is wrong.", "C"),
        ("A. bank\nB. river\nThe right choice is B. river", "B"),
        ("The answer is A. No, the answer is B. Option C is wrong.", "B"),
        ("C. Because option A is wrong.", "C"),
        ("C\n\nOption A is wrong.", "C"),
        ("Not option A but option B", "B"),
        (r"The answer is A, so \boxed{B}", "B"),
        # A letter within a word or as an article is none.
        (r"\boxed{Bank}", None),
        (r"\boxed{Apple}", None),
        (r"\boxed{A dog}", "A"),
        ("The answer is Bank", None),
        ("The answer is not A", None),
        ("A's job", None),
        # Wrappers.
        (r"\boxed{\textbf{B}}", "B"),
        (r"\boxed{\mathrm{(B)}}", "B"),
        (r"\boxed{\text{B. river}}", "B"),
        (r"The final answer is \(C\)", "C"),
        (r"The answer is \text{C}.", "C"),
        (r"Answer: $\mathbf{C}$", "C"),
        ('The answer is: "C"', "C"),
        ("**Answer**: C", "C"),
        ("**C**", "C"),
        (r"\text{C}", "C"),
        ("I pick 'C'", "C"),
    ],
)
def test_choice_letter(text: str, expected: str | None) -> None:
    found = choice(text, "ABCDE")
    assert (found and found.text) == expected


WORDINGS = [
    ("The answer is option **B**.", "B", "stated"),
    ("ANSWER: C", "C", "stated"),
    ("answer: (d)", "D", "stated"),
    ("I would say that the answer is C.", "C", "stated"),
    ("C is the best choice.", "C", "stated"),
    ("B is the correct answer.", "B", "stated"),
    ("The best choice would be (C).", "C", "stated"),
    ("Considering all of this, C seems the most plausible.", "C", "stated"),
    ("Option C is correct because dogs bark.", "C", "stated"),
    ("So the correct option is C.", "C", "stated"),
    ("That leaves us with D.", "D", "stated"),
    ("By elimination, it must be E.", "E", "stated"),
    ("A is incorrect, B is incorrect, so C.", "C", "stated"),
    ("Not A, not B, not C. D it is.", "D", "stated"),
    ("Answer A is wrong. Answer C is right. Answer D is wrong.", "C", "stated"),
    ("My answer: B", "B", "stated"),
    ("I'd go with A.", "A", "stated"),
    ("I choose B", "B", "stated"),
    ("I'll choose D", "D", "stated"),
    ("I pick E.", "E", "stated"),
    ("The most likely answer is A.", "A", "stated"),
    ("Answer: B) river", "B", "stated"),
    ("answer=B", "B", "stated"),
    ("Answer is: b", "B", "stated"),
    ("Ans: C", "C", "stated"),
    ("The answer would be D, as the others fail.", "D", "stated"),
    ("The answer can't be A. It is C.", "C", "stated"),
    ("The answer is not A but C.", "C", "stated"),
    ("It's D.", "D", "stated"),
    ("Well, that would be C", "C", "stated"),
    ("The correct answer is (A) bank, because money is kept there.", "A", "stated"),
    ("The answer is A, since B is too wide.", "A", "stated"),
    ("B is tempting, but C is the right one.", "C", "stated"),
    ("We can rule out A and B. C remains.", "C", "stated"),
    ("The answer is B. (A is a place for money.)", "B", "stated"),
    ("The answer is\n\nB", "B", "stated"),
    ("I think A.", "A", "stated"),
    ("Choose: B", "B", "stated"),
    ("I believe the right answer is B, river.", "B", "stated"),
    (r"The answer is $\mathbf{B}$.", "B", "stated"),
    (r"The answer is \underline{B}.", "B", "stated"),
    ("The answer is B and not C", "B", "stated"),
    ("The answer must be C.", "C", "stated"),
    ("(B) river is the answer.", "B", "stated"),
    ("Selected option: D", "D", "stated"),
    ("**Final Answer**\n\nThe answer: C", "C", "stated"),
    ("La respuesta correcta es B.", "B", "stated"),
    ("Die richtige Antwort ist C.", "C", "stated"),
    ("The answer is river (B).", "B", "stated"),
    ("The answer is river.", "B", "stated"),
    ("A. bank - no\nB. river - yes", "B", "stated"),
    ("The answer is B.\n\nQuestion: next one\nAnswer: C", "B", "stated"),
    ("A.", "A", "opening"),
    ("a) bank", "A", "opening"),
    ("B - river", "B", "opening"),
    ("B: river", "B", "opening"),
    ("**B)** river", "B", "opening"),
    ("<b>B</b>", "B", "opening"),
    ("B (river)", "B", "opening"),
    ("B river", "B", "opening"),
    ("D. I'm confident.", "D", "opening"),
    ("B\nbecause of A", "B", "opening"),
    ("B<|im_end|>", "B", "opening"),
    ("d", "D", "opening"),
    ("After careful thought: E", "E", "alone"),
    ("Money is kept there.\n\nE", "E", "alone"),
    ("Looking at all, option (C)", "C", "mentioned"),
    (r"\boxed{river}", "B", "box"),
    (r"\boxed{A bank}", "A", "box"),
    (r"\boxed{a dog park}", "E", "box"),
    (r"\boxed{E = mc^2} so Answer: D", "D", "stated"),
    (r"\boxed{A + B}. The answer is D.", "D", "stated"),
    (r"\boxed{\textbf{(C) }12}", "C", "box"),
    ("<answer>house</answer>", "D", "tag"),
    ("<answer>B</answer>", "B", "tag"),
    ("<answer>(b)</answer>", "B", "tag"),
    ("river", "B", "words"),
    ("It is kept there.\n\nThe dog park", "E", "words"),
]


@pytest.mark.parametrize(("text", "letter", "form"), WORDINGS)
def test_wordings_of_a_choice_and_their_form(text: str, letter: str, form: str) -> None:
    found = choice(text, "ABCDE", OPTIONS)
    assert found is not None
    assert found.text == letter
    assert found.form in (form, "words" if form in ("box", "tag") else form)


@pytest.mark.parametrize(
    "text",
    [
        "I am not sure.", "A and B both could be right.", "The options are A, B, C, D and E.",
        "The answer is A or B.",
        "The answer is either A or B", r"\boxed{A, B}", "The answer is A and B.", "The answer is not A.",
        "Apple",
        "A. bank\nB. river\nC. shop", "A man walks in.", "It is a bank robbery.", r"\boxed{A + B}",
        "Option A is wrong.",
        "Plan A fails.", "",
    ],
)  # fmt: skip
def test_what_is_not_the_choice_of_a(text: str) -> None:
    found = choice(text, "ABCDE", OPTIONS)
    assert found is None or found.text != "A"


def test_more_letters_are_read_where_the_task_has_more() -> None:
    for text in ("The answer is (J).", "J", "I think it is J", r"\boxed{J}", "I.\nStep one gives option J"):
        found = choice(text, "ABCDEFGHIJ")
        assert found is not None
        assert found.text == "J"
    assert choice("F = ma, I guess", "ABCDEFGHIJ") is None


def test_options_whose_words_are_an_article_or_the_same() -> None:
    texts = ["Terminator 2", "Cloverfield", "An", "57", "-57"]
    assert choice("So the answer is (A).", "ABCDE", texts) == ("A", "stated")
    assert choice("An", "ABCDE", texts) is not None
    assert choice("The answer is 57.", "ABCDE", texts) is None  # 57 and -57 have the same words
