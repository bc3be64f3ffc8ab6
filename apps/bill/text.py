"""A bill as plain text, 96 columns wide."""

from apps.bill.present import Page, Row

WIDTH = 96
NAME_WIDTH = 46


def show_text(page: Page) -> str:
    lines = [page.title.upper(), ""]
    lines += [f"{label:<24}{value}" for label, value in page.who]
    lines += ["", *_section("Your electricity charges", page.electricity, page.currency)]
    lines += [_sum("Total electricity charges", page.electricity_charges)]
    lines += ["", *_section("Other charges", page.other, page.currency), "=" * WIDTH]
    lines += [_sum(f"Total due, {page.currency}", page.total_due), ""]
    lines += [f"{label:<24}{value}" for label, value in page.figures]
    lines += ["", *page.notes]
    return "\n".join(lines)


def _section(title: str, rows: tuple[Row, ...], currency: str) -> list[str]:
    shown = [f"{_fitted(row.name)}{row.detail:<34}{row.amount:>16}" for row in rows]
    return [f"{title:<{WIDTH - len(currency)}}{currency}", "-" * WIDTH, *shown]


def _fitted(name: str) -> str:
    """In its column; a long one has a line of its own."""
    return f"{name:<{NAME_WIDTH}}" if len(name) < NAME_WIDTH else f"{name}\n{'':<{NAME_WIDTH}}"


def _sum(name: str, amount: str) -> str:
    return f"{name:<{WIDTH - 16}}{amount:>16}"
