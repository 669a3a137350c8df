"""What `inspect --tokenizer` prints and writes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from loralab.cli.gathering import Gathered, Opened, SourceAccount
from loralab.cli.profile import spread
from loralab.cli.tables import cells, make_table, print_removed, say, show_table, spread_cells, visible
from loralab.cli.tokens import TokenAccount, count_tokens
from loralab.config.data import DataConfig
from loralab.data.opening import check_purpose, source_files
from loralab.data.report import DataFile, DataReport, SourceReport
from loralab.data.sources import hash_file
from loralab.data.tally import Tally
from loralab.errors import DataError
from loralab.evaluation.data_facts import DataFacts, check_masks, show_examples
from loralab.evaluation.data_page import write_data_page
from loralab.evaluation.token_view import TokenBox, as_terminal_text, clip_tokens

MOST_TOKENS = 400
"""Tokens printed of an example."""
HTML_EXAMPLES = 20
LEARNED_MARKS = ("⟦", "⟧")

Inspected = tuple[Sequence[Opened], Gathered, DataConfig]


def report_tokens(
    console: Console,
    inspected: Inspected,
    tokenizer: PreTrainedTokenizerBase,
    html: Path | None,
    num_examples: int,
    folder: Path,
) -> None:
    """Prints lengths, what is learned, what training would refuse, and examples; writes the page.

    Args:
        console: Where to print.
        inspected: The sources, their rows and the options.
        tokenizer: With its chat template.
        html: The page to write.
        num_examples: Examples to print.
        folder: Where the working store lies.
    """
    opened, gathered, config = inspected
    counted = count_tokens(gathered.corpus, gathered.alive, tokenizer, config, folder)
    _print_account(console, counted, config, [*_unfit(opened, config), *counted.refusals])
    names = [each.source.name for each in opened]
    for shown in show_examples(counted.store[:num_examples], names, tokenizer):
        console.print(Rule(Text(f"{shown.place}: {shown.num_learned} of {len(shown.tokens)} tokens learned")))
        console.print(_example_text(console, shown.tokens))
    if html is not None:
        write_data_page(html, _facts(inspected, counted, tokenizer))
        say(console, f"page: {html}")


def _unfit(opened: Sequence[Opened], config: DataConfig) -> Iterator[str]:
    """Says which sources have rows of a form that fine-tuning on answers does not take."""
    for each in opened:
        try:
            check_purpose(each.source, each.form, config.preference)
        except DataError as error:
            yield str(error)


def _print_account(
    console: Console, counted: TokenAccount, config: DataConfig, refusals: Sequence[str]
) -> None:
    ledger = counted.ledger
    console.print()
    say(console, "as the model sees them", "bold")
    print_removed(console, counted.tally)
    if counted.lengths:
        table = make_table("tokens", ">min", ">median", ">p95", ">max")
        table.add_row(*cells("row", *spread_cells(spread(counted.lengths))))
        if len(counted.store):
            table.add_row(*cells("learned", *spread_cells(spread(counted.store.supervised.tolist()))))
        show_table(console, table)
    share = ledger.supervised_tokens / ledger.tokens if ledger.tokens else 0.0
    learned = f"{ledger.supervised_tokens:,} of {ledger.tokens:,} tokens ({share:.1%})"
    say(console, f"learned  {learned}, supervise={config.supervise}")
    over = sum(length > config.max_length for length in counted.lengths)
    effect = f"{ledger.dropped:,} dropped, {ledger.truncated:,} cut"
    lost = f"{effect}, {ledger.supervised_tokens_lost:,} tokens to learn lost"
    limit = f"max_length={config.max_length}, over_length={config.over_length}"
    say(console, f"length   {over:,} of {len(counted.lengths):,} rows are too long ({limit}): {lost}")
    for refusal in refusals:
        say(console, f"training would not start: {refusal}", "red")
    if not refusals:
        say(
            console,
            "checks   every example learns, ends with its stop token and has one BOS at most",
            "green",
        )


def _example_text(console: Console, tokens: Sequence[TokenBox]) -> Text:
    """The tokens in colour; where there is no colour, what is learned between marks."""
    if console.color_system is not None:
        return as_terminal_text(tokens, MOST_TOKENS)
    head, skipped, tail = clip_tokens(tokens, MOST_TOKENS)
    middle = f"\n… {skipped:,} tokens …\n" if skipped else ""
    return Text(_marked(head) + middle + _marked(tail))


def _marked(tokens: Sequence[TokenBox]) -> str:
    parts, is_open = [], False
    for token in tokens:
        if token.is_learned != is_open:
            parts.append(LEARNED_MARKS[is_open])
            is_open = token.is_learned
        parts.append(visible(token.text))
    return "".join(parts) + (LEARNED_MARKS[1] if is_open else "")


def _facts(inspected: Inspected, counted: TokenAccount, tokenizer: PreTrainedTokenizerBase) -> DataFacts:
    opened, gathered, config = inspected
    files = [DataFile(str(path), hash_file(path)) for each in opened for path in source_files(each.source)]
    names = [each.source.name for each in opened]
    return DataFacts(
        title=", ".join(names),
        report=DataReport(
            [
                _source_report(each, account, counted.by_source.get(number, Tally()))
                for number, (each, account) in enumerate(zip(opened, gathered.accounts, strict=True))
            ],
            {"train": counted.tally},
            {"train": counted.ledger},
        ),
        files=files,
        max_length=config.max_length,
        checks=[check_masks("train", counted.store, tokenizer)],
        examples=show_examples(counted.store[:HTML_EXAMPLES], names, tokenizer),
        bos_token=str(tokenizer.bos_token or ""),
        chat_template=str(tokenizer.chat_template),
        config_text="",
        privacy=config.privacy.action,
        contamination="none",  # nothing is held out here
    )


def _source_report(opened: Opened, account: SourceAccount, later: Tally) -> SourceReport:
    return SourceReport(
        opened.source.name,
        "train",
        opened.form_name,
        account.tally,
        dict(account.private),
        account.private_rows,
        account.private_examples,
        opened.reason.removeprefix(f"{opened.form_name}: "),
        splits={"train": later},
    )
