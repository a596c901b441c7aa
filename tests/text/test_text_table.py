"""Tables as texts of other programs."""

from deepexp.text.text_table import Table, escape_latex


def test_latex_sets_each_character_as_it_is():
    assert escape_latex("a_b & 5% of {x} ~ ^ # $ \\") == (
        r"a\_b \& 5\% of \{x\} \textasciitilde{} \textasciicircum{} \# \$ \textbackslash{}"
    )
    assert escape_latex("1.0 ± 0.5, 3×28×28, 2–3, −1, a…") == (
        r"1.0 $\pm$ 0.5, 3$\times$28$\times$28, 2--3, $-$1, a\dots{}"
    )
    assert "\n" not in escape_latex("two\nlines")


def test_a_table_of_latex_has_a_row_a_line_and_numbers_to_the_right():
    table = Table(["name", "error"], [["a_1", "5%"], ["b", "12%"]], frozenset({1}))
    assert list(table.latex()) == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"name & error \\",
        r"\midrule",
        r"a\_1 & 5\% \\",
        r"b & 12\% \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
