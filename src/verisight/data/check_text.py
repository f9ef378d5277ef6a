"""What a check found as tables of words: for a terminal, for a pipe, and for the HTML page."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from verisight.data.check_facts import Count, Facts, Finding, Leak, Lengths, Share, Shared


class Listing(NamedTuple):
    """A table. Columns named in `right` hold numbers; `note` says how to read it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[int, ...] = ()
    note: str = ""


def verdict(facts: Facts) -> str:
    """The result in a sentence."""
    rows = facts.rows
    if not rows.num_usable:
        return f"Not usable: none of {rows.num:,} rows gives a pair."
    share = f"{rows.num_faulty:,} of {rows.num:,} rows are faulty ({rows.num_faulty / rows.num:.1%})"
    accepted = f"{rows.max_bad:.1%} accepted"
    if not rows.passed:
        return f"Too many faulty rows: {share}, {accepted}."
    return f"Usable: {share}, {accepted}." if rows.num_faulty else f"Usable: no faulty row among {rows.num:,}."


def cautions(facts: Facts) -> Iterator[str]:
    """What to think about before training, most serious first."""
    for leak in facts.leaks:
        if leak.num_pairs:
            yield f"Pairs whose pictures are also in {leak.against}: {leak.num_pairs:,} of {facts.rows.num_pairs:,}."
        elif leak.same_prompts:
            yield f"Pairs whose prompts are also in {leak.against}: {leak.same_prompts:,} of {facts.rows.num_pairs:,}."
    if facts.splits and facts.splits.num_pictures:
        yield f"Pictures in files of several splits ({', '.join(facts.splits.names)}): {facts.splits.num_pictures:,}."
    if facts.repeats.conflicts.num:
        yield f"Comparisons that contradict another one of the same prompt: {facts.repeats.conflicts.num:,}."
    if facts.repeats.exact.num:
        yield f"Exact copies of another pair: {facts.repeats.exact.num:,}."
    if (bias := facts.length_bias) and not bias.longer_chosen.low <= 0.5 <= bias.longer_chosen.high:
        share, total = bias.longer_chosen.value, bias.longer_chosen.total
        side, share = ("longer", share) if share > 0.5 else ("shorter", 1 - share)
        yield f"The {side} answer is the chosen one in {share:.1%} of {total:,} pairs of unequal length."
    if facts.taken.license == "" and any(one.name == "none given" for one in facts.licenses):
        yield "Its publisher gives no licence."


def listings(facts: Facts) -> Iterator[Listing]:
    """Every table that has something to tell."""
    yield _taken(facts)
    yield _rows(facts)
    yield from _reasons(facts)
    if facts.rows.num_pairs:
        yield _make_up(facts)
        yield _lengths(facts)
        yield _repeats(facts)
    if facts.splits:
        found = facts.splits
        row = (f"{found.num_pictures:,}", f"{found.num_pairs:,}", _groups(found.examples))
        yield Listing(
            f"Pictures on both sides of {', '.join(found.names)}", ("pictures", "pairs", "rows"), (row,), (0, 1)
        )
    if facts.leaks:
        yield _leaks(facts)
    if facts.words:
        rows = tuple(
            (word.word, f"{word.num_chosen_only:,}", f"{word.num_rejected_only:,}", f"{word.log_odds:+.2f}")
            for word in facts.words
        )
        note = (
            "In how many pairs only one of the answers has the word. A model can learn these words instead of looking."
        )
        header = ("word", "only in chosen", "only in rejected", "log-odds")
        yield Listing("Words that tell chosen from rejected", header, rows, (1, 2, 3), note)


def show(listing: Listing) -> None:
    """Print a table: on a terminal with colours, in a pipe as plain lines that are never cut or wrapped."""
    if sys.stdout.isatty():
        _show_rich(listing)
        return
    table = (listing.header, *listing.rows) if listing.header else listing.rows
    cells = [tuple(printable(cell.replace("\n", "; ")) for cell in row) for row in table]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{printable(listing.title)}")
    for row in cells:
        shown = (
            cell.rjust(width) if at in listing.right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  " + "  ".join(shown).rstrip())
    if listing.note:
        print(f"  {listing.note}")


def printable(text: str) -> str:
    """Without control characters, which a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _show_rich(listing: Listing) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(f"\n{printable(listing.title)}", style="bold"))
    table = Table(box=None, pad_edge=False, show_header=bool(listing.header), header_style="dim")
    for at in range(len(listing.rows[0])):
        name = listing.header[at] if listing.header else ""
        table.add_column(name, justify="right" if at in listing.right else "left", overflow="fold")
    for row in listing.rows:
        table.add_row(*(Text("\n".join(map(printable, cell.split("\n")))) for cell in row))
    console.print(table)
    if listing.note:
        console.print(Text(listing.note, style="dim"))


def _taken(facts: Facts) -> Listing:
    taken = facts.taken
    files = taken.files[0] if len(taken.files) == 1 else f"{len(taken.files)} files in {taken.path}"
    tags = _told(facts.licenses) or taken.license or "none given"
    rows = [
        ("data", files),
        ("seen", taken.seen),
        ("taken for", f"{taken.title} ({taken.kind})"),
        ("from", taken.publisher),
        ("licence", tags),
        ("pictures", _where(facts)),
    ]
    if taken.rule is not None:
        rows.append(("pairs made by", taken.rule))
    if taken.limit is not None:
        rows.append(("read", f"the first {taken.limit:,} rows"))
    return Listing("What it is", (), tuple(rows))


def _where(facts: Facts) -> str:
    taken = facts.taken
    looked = "each decoded" if taken.decoded else "found, not decoded"
    return f"{facts.num_pictures:,} different ones, {looked}{f', in {taken.images}' if taken.images else ''}"


def _rows(facts: Facts) -> Listing:
    rows = facts.rows
    told = [
        ("read", rows.num, ""),
        ("usable", rows.num_usable, _percent(rows.num_usable, rows.num)),
        ("faulty", rows.num_faulty, _percent(rows.num_faulty, rows.num)),
        ("left out by rule", rows.num_left_out, _percent(rows.num_left_out, rows.num)),
        ("pairs", rows.num_pairs, ""),
    ]
    if rows.num_supervised:
        told.append(("of them supervised", rows.num_supervised, _percent(rows.num_supervised, rows.num_pairs)))
    told.append(("chosen equals rejected", facts.num_equal, ""))
    shown = tuple((name, f"{num:,}", share) for name, num, share in told)
    return Listing("Rows", ("", "number", "share"), shown, (1, 2), "A row with several pairs can be usable and faulty.")


def _reasons(facts: Facts) -> Iterator[Listing]:
    for fault, title in ((True, "Faults"), (False, "Left out by rule")):
        rows = tuple(
            (one.reason, f"{one.num:,}", f"{one.num_rows:,}", _first(one.rows, one.num_rows), "\n".join(one.examples))
            for one in facts.reasons
            if one.fault == fault
        )
        if rows:
            note = "Rows count from 0."
            yield Listing(title, ("reason", "times", "rows", "first rows", "such as"), rows, (1, 2), note)


def _make_up(facts: Facts) -> Listing:
    rows = (
        ("placeholder <image>", _told(facts.placeholders)),
        ("turns", _told(facts.turns)),
        ("pictures", _told(facts.pictures)),
    )
    return Listing("How pairs are made up", ("", "pairs"), rows)


def _lengths(facts: Facts) -> Listing:
    sides = [(name, found) for name, found in (("chosen", facts.chosen), ("rejected", facts.rejected)) if found]
    rows = tuple((name, *_numbers(found)) for name, found in sides)
    note = ""
    if bias := facts.length_bias:
        note = (
            f"Longer answer chosen: {_share(bias.longer_chosen)} of {bias.longer_chosen.total:,} pairs of unequal "
            f"length, {bias.num_ties:,} ties. The rule that the longer one wins is right in {bias.rule_accuracy:.1%}, "
            "ties counting half."
        )
    return Listing("Words an answer", ("", "mean", "median", "5 %", "95 %"), rows, (1, 2, 3, 4), note)


def _repeats(facts: Facts) -> Listing:
    found = facts.repeats
    named: tuple[tuple[str, Finding], ...] = (
        ("exact copies", found.exact),
        ("near copies", found.near),
        ("same prompt in several rows", found.same_prompt),
        ("contradictions (A over B, B over A)", found.conflicts),
    )
    rows = tuple((name, f"{one.num:,}", f"{one.num_groups:,}", _groups(one.examples)) for name, one in named)
    note = (
        f"Near: same picture (text-only: same prompt), and of all runs of three words {found.min_jaccard:.0%} or more "
        f"are common to both. The first {found.bucket_cap} pairs of a picture are compared"
    )
    note += f"; {found.num_not_compared:,} pairs behind them were not." if found.num_not_compared else "."
    return Listing("Repeats", ("", "pairs", "groups", "rows"), rows, (1, 2), note)


def _leaks(facts: Facts) -> Listing:
    rows: list[tuple[str, ...]] = []
    for leak in facts.leaks:
        rows += _leak_rows(leak)
    note = (
        "A picture counts once, by the strongest evidence. Look-alikes have the same difference hash (64 bits of "
        "brightness steps); hashes with fewer than 8 bits set or unset are of nearly flat pictures and not compared."
    )
    return Listing(
        "Also on the other side", ("against", "evidence", "pictures", "pairs", "such as"), tuple(rows), (2, 3), note
    )


def _leak_rows(leak: Leak) -> Iterator[tuple[str, ...]]:
    about = f"{leak.against}\n{leak.what}, {leak.num_pictures:,} pictures"
    if leak.num_unusable:
        about += f"; {leak.num_unusable:,} could not be compared"
    evidence: tuple[tuple[str, Shared | None], ...] = (
        ("same file", leak.same_file),
        ("same COCO number", leak.same_coco),
        ("looks alike", leak.look_alike),
    )
    for name, found in evidence:
        if found is None:
            yield about, name, "-", "-", "not compared: one side has none"
        else:
            yield about, name, f"{found.num_pictures:,}", f"{found.num_pairs:,}", "\n".join(found.examples[:3])
        about = ""
    if leak.same_prompts is not None:
        yield "", "same prompt", "", f"{leak.same_prompts:,}", ""
        yield "", "same pair", "", f"{leak.same_pairs or 0:,}", ""


def _percent(num: int, total: int) -> str:
    return f"{num / total:.1%}" if total else ""


def _share(share: Share) -> str:
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"


def _numbers(found: Lengths) -> tuple[str, ...]:
    return tuple(f"{value:.1f}" for value in (found.mean, found.median, found.low, found.high))


def _told(counts: Sequence[Count]) -> str:
    """Counts in a line; a single kind by its name alone."""
    if len(counts) == 1:
        return f"{counts[0].name} (all)"
    shown = [f"{one.name}: {one.num:,}" for one in counts[:8]]
    return ", ".join([*shown, *([f"{len(counts) - 8} more"] if len(counts) > 8 else [])])


def _first(rows: Sequence[str], num: int) -> str:
    return ", ".join(rows) + (", ..." if num > len(rows) else "")


def _groups(groups: Sequence[Sequence[str]]) -> str:
    shown = (" = ".join(group) if len(group) > 1 else f"within {group[0]}" for group in groups[:3])
    return "; ".join(shown) + ("; ..." if len(groups) > 3 else "")
