"""A bill as a PDF on A4, with the fonts that every reader has or with a TrueType font of the operator's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fpdf import FPDF, FontFace
from fpdf.enums import TableBordersLayout, XPos, YPos
from fpdf.errors import FPDFUnicodeEncodingException

from apps.bill.chart import COLOURS, FAINT, INK, Chart
from apps.bill.present import Page, Row

SOFT: Final = "#5b6b7c"
ACCENT: Final = "#2a9d6f"
BUILT_IN: Final = "helvetica"
GIVEN: Final = "given"
MARGIN: Final = 20.0  # in mm, as all that follows
ROW: Final = 6.0
COLUMNS: Final = (78.0, 60.0, 32.0)  # what, how it comes about, how much
CHART_HEIGHT: Final = 42.0
CHART_LEFT: Final = 10.0  # for the kWh beside it


class NotInFont(ValueError):
    """The font has no glyph for a character of the bill."""


def make_paper(page: Page, font: Path | None = None) -> bytes:
    """The PDF: the same bytes for the same bill. Raises: NotInFont, OSError for a font that cannot be read."""
    pdf = FPDF(format="A4")
    pdf.set_title(page.title)
    pdf.set_creation_date(page.created)
    pdf.set_margins(MARGIN, 16, MARGIN)
    pdf.set_auto_page_break(auto=True, margin=14)
    if font is not None:
        for style in ("", "B"):
            pdf.add_font(GIVEN, style, font)
    pdf.add_page()
    try:
        _Printer(pdf, BUILT_IN if font is None else GIVEN).print(page)
        return bytes(pdf.output())
    except FPDFUnicodeEncodingException as fault:
        raise NotInFont(
            f"the PDF's own fonts have no {fault.character!r}: give a TrueType font that has (--font FILE)"
        ) from None


class _Printer:
    """Fills a PDF from the top."""

    def __init__(self, pdf: FPDF, family: str) -> None:
        self.pdf = pdf
        self._family = family

    def print(self, page: Page) -> None:
        self._head(page)
        self._section("Your electricity charges", page.electricity, page.currency)
        self._sum("Total electricity charges", page.electricity_charges)
        self._section("Other charges", page.other, page.currency)
        self._sum("Total due", f"{page.total_due} {page.currency}")
        if self.pdf.will_page_break(CHART_HEIGHT + 24):  # with its heading
            self.pdf.add_page()
        self._heading("Your energy day by day", "kWh")
        self._legend(page.chart.kinds)
        self._chart(page.chart)
        self._figures(page.figures)
        self._font(8, colour=SOFT)
        for note in page.notes:
            self.pdf.multi_cell(0, 4.2, note, new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def _head(self, page: Page) -> None:
        pdf = self.pdf
        pdf.set_fill_color(ACCENT)
        pdf.rect(0, 0, pdf.w, 4, style="F")
        self._font(20, bold=True)
        pdf.cell(110, 12, page.title)
        self._font(20, bold=True, colour=ACCENT)
        pdf.cell(0, 12, f"{page.total_due} {page.currency}", align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        for label, value in page.who:
            self._font(9.5, colour=SOFT)
            pdf.cell(44, 5.2, label)
            self._font(9.5)
            pdf.multi_cell(0, 5.2, value, new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def _heading(self, text: str, unit: str) -> None:
        self.pdf.ln(4)
        self._font(11.5, bold=True)
        self.pdf.cell(sum(COLUMNS) - COLUMNS[-1], 7, text)
        self._font(9.5, colour=SOFT)
        self.pdf.cell(COLUMNS[-1], 7, unit, align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def _section(self, title: str, rows: Sequence[Row], currency: str) -> None:
        self._heading(title, currency)
        self._font(9.5)
        self.pdf.set_draw_color(FAINT)
        self.pdf.set_fill_color("#ffffff")
        soft = FontFace(color=SOFT)
        with self.pdf.table(
            col_widths=COLUMNS,
            text_align=("LEFT", "LEFT", "RIGHT"),
            borders_layout=TableBordersLayout.HORIZONTAL_LINES,
            first_row_as_headings=False,
            line_height=ROW,
            padding=(0.3, 0),
        ) as table:
            for row in rows:
                line = table.row()
                line.cell(row.name)
                line.cell(row.detail, style=soft)
                line.cell(row.amount)

    def _sum(self, name: str, amount: str) -> None:
        pdf = self.pdf
        pdf.set_draw_color(INK)
        pdf.line(MARGIN, pdf.get_y(), pdf.w - MARGIN, pdf.get_y())
        self._font(10, bold=True)
        pdf.cell(sum(COLUMNS) - 50, 7, name)
        pdf.cell(50, 7, amount, align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def _legend(self, kinds: Sequence[str]) -> None:
        pdf = self.pdf
        self._font(8.5, colour=SOFT)
        for kind in kinds:
            pdf.set_fill_color(COLOURS[kind])
            pdf.rect(pdf.get_x(), pdf.get_y() + 1.2, 2.6, 2.6, style="F")
            pdf.set_x(pdf.get_x() + 4)
            pdf.cell(pdf.get_string_width(kind) + 6, 5, kind)
        pdf.ln(6)

    def _chart(self, chart: Chart) -> None:
        pdf = self.pdf
        top, left = pdf.get_y() + 1, MARGIN + CHART_LEFT
        width = pdf.epw - CHART_LEFT
        self._font(7, colour=SOFT)
        pdf.set_draw_color(FAINT)
        for text, share in chart.ticks:
            y = top + CHART_HEIGHT * (1 - share)
            pdf.line(left, y, left + width, y)
            pdf.text(left - 2 - pdf.get_string_width(text), y + 0.9, text)
        for bar in chart.bars:
            pdf.set_fill_color(COLOURS[bar.kind])
            y = top + CHART_HEIGHT * (1 - bar.bottom - bar.height)
            pdf.rect(left + width * bar.x, y, width * bar.width, CHART_HEIGHT * bar.height, style="F")
        for text, share in chart.labels:
            x = left + width * share - pdf.get_string_width(text) / 2
            pdf.text(x, top + CHART_HEIGHT + 3.4, text)
        pdf.set_y(top + CHART_HEIGHT + 7)

    def _figures(self, figures: Sequence[tuple[str, str]]) -> None:
        pdf = self.pdf
        for number, (label, value) in enumerate(figures):
            self._font(9, colour=SOFT)
            pdf.cell(36, 5, label)
            self._font(9)
            pdf.cell(49, 5, value)
            if number % 2 or number == len(figures) - 1:
                pdf.ln(5)
        pdf.ln(3)

    def _font(self, size: float, *, bold: bool = False, colour: str = INK) -> None:
        self.pdf.set_font(self._family, "B" if bold else "", size)
        self.pdf.set_text_color(colour)
