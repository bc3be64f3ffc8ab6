"""A bill as a page of its own: no script, nothing loaded from elsewhere, and fit to be printed."""

from html import escape
from pathlib import Path
from string import Template
from typing import Final

from apps.bill.chart import COLOURS, FAINT, Chart
from apps.bill.present import Page, Row

TEMPLATE: Final = Path(__file__).with_name("page.html")
# Of the chart, in the units of its drawing.
WIDTH, HEIGHT = 720, 220
LEFT, BOTTOM, TOP = 40, 22, 8


def show_page(page: Page) -> str:
    """HTML 5; whatever stands in the bill is shown as text."""
    parts = {
        "title": escape(page.title),
        "who": "".join([f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in page.who]),
        "electricity": "".join(map(_row, page.electricity)),
        "electricity_charges": page.electricity_charges,
        "other": "".join(map(_row, page.other)),
        "total_due": page.total_due,
        "currency": escape(page.currency),
        "legend": "".join(
            [f'<span><i style="background:{COLOURS[kind]}"></i>{kind}</span>' for kind in page.chart.kinds]
        ),
        "chart": _draw(page.chart),
        "figures": "".join(
            [f"<div><span>{escape(label)}</span>{escape(value)}</div>" for label, value in page.figures]
        ),
        "notes": "".join([f"<p>{escape(note)}</p>" for note in page.notes]),
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(parts)


def _row(row: Row) -> str:
    return f"<tr><td>{escape(row.name)}</td><td>{escape(row.detail)}</td><td>{row.amount}</td></tr>"


def _draw(chart: Chart) -> str:
    """As SVG."""
    width, height = WIDTH - LEFT, HEIGHT - BOTTOM - TOP
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="energy of each day, in kWh">']
    for text, share in chart.ticks:
        y = TOP + height * (1 - share)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{FAINT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for bar in chart.bars:
        y = TOP + height * (1 - bar.bottom - bar.height)
        parts.append(
            f'<rect x="{LEFT + width * bar.x:.1f}" y="{y:.1f}" width="{width * bar.width:.1f}" '
            f'height="{height * bar.height:.1f}" fill="{COLOURS[bar.kind]}"/>'
        )
    for text, share in chart.labels:
        x = LEFT + width * share
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 5}" text-anchor="middle">{text}</text>')
    return "".join([*parts, "</svg>"])
