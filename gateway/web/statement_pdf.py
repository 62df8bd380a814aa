"""A statement as a PDF, drawn with fpdf2. The same statement gives the same bytes.

The built-in fonts know Western European letters only; a name in others is written in DejaVu Sans, which lies beside.
What that does not know either, such as Chinese, is shown as "?"; the account's id stands below.
"""

from pathlib import Path

from fpdf import FPDF, XPos, YPos
from fpdf.fonts import FontFace, TTFFont

from gateway.core.accounting.statements import Statement
from gateway.core.money import UCR_PER_CREDIT, MicroCredits

INK, FAINT, LINE, BAND = (28, 33, 40), (110, 118, 128), (208, 213, 219), (244, 246, 248)
MARGIN_MM = 18
FONT_OF_MORE_LETTERS = Path(__file__).with_name("fonts") / "DejaVuSans.ttf"


def statement_pdf(statement: Statement, content_hash: str) -> bytes:
    """Draw it on A4; it takes some ten milliseconds, so not on an event loop."""
    pdf = _Page(statement, content_hash)
    pdf.add_page()
    _head(pdf, statement)
    _summary(pdf, statement)
    _movements(pdf, statement)
    _receipts(pdf, statement)
    _proof(pdf, statement, content_hash)
    return bytes(pdf.output())


class _Page(FPDF):
    def __init__(self, statement: Statement, content_hash: str) -> None:
        super().__init__(format="A4")
        self._statement = statement
        self.set_margin(MARGIN_MM)
        self.set_auto_page_break(True, margin=22)
        self.set_creation_date(statement.made_at)
        self.set_title(f"Statement {statement.month}")
        self.set_author("Tollgate")

    def footer(self) -> None:
        self.set_y(-15)
        _font(self, 8, color=FAINT)
        made = f"{self._statement.made_at:%Y-%m-%d %H:%M} UTC"
        self.cell(0, 5, f"Statement {self._statement.month}, made {made}", new_x=XPos.LMARGIN)
        self.cell(0, 5, f"Page {self.page_no()} of {{nb}}", align="R")


def _head(pdf: FPDF, statement: Statement) -> None:
    _font(pdf, 20, "B")
    state = "" if statement.is_closed else " (month not closed yet)"
    pdf.cell(0, 10, f"Statement {statement.month}", new_x=XPos.END)
    _font(pdf, 10, color=FAINT)
    pdf.cell(0, 10.6, state, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    name = _lettered(pdf, 11, statement.account_name)
    pdf.multi_cell(0, 6, name, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    _font(pdf, 8.5, color=FAINT)
    pdf.cell(0, 5, f"Account {statement.account_id}", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    if statement.tax_ids:
        text = _lettered(pdf, 8.5, f"Tax id {statement.tax_ids}", color=FAINT)
        pdf.multi_cell(0, 5, text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.cell(0, 5, "Amounts are in credits; 1,000 credits are $1. Times are UTC.", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.ln(5)


def _summary(pdf: FPDF, statement: Statement) -> None:
    into = sum(each.amount for each in statement.movements if each.amount > 0)
    out = sum(each.amount for each in statement.movements if each.amount < 0)
    figures = [("Opening", statement.opening), ("In", into), ("Out", out), ("Closing", statement.closing)]
    width = pdf.epw / len(figures)
    pdf.set_fill_color(*BAND)
    top = pdf.get_y()
    pdf.rect(pdf.l_margin, top, pdf.epw, 18, style="F")
    for number, (name, amount) in enumerate(figures):
        pdf.set_xy(pdf.l_margin + number * width + 3, top + 3)
        _font(pdf, 8.5, color=FAINT)
        pdf.cell(width - 6, 4, name, new_x=XPos.LEFT, new_y=YPos.NEXT)
        _font(pdf, 12, "B")
        text = credits(amount)
        if pdf.get_string_width(text) > width - 8:
            _font(pdf, 12 * (width - 8) / pdf.get_string_width(text), "B")
        pdf.cell(width - 6, 7, text)
    pdf.set_xy(pdf.l_margin, top + 24)


def _movements(pdf: FPDF, statement: Statement) -> None:
    _title(pdf, "Movements")
    rows = [[each.title, each.model, f"{each.count:,}", credits(each.amount)] for each in statement.movements]
    if not rows:
        _font(pdf, 9.5, color=FAINT)
        pdf.cell(0, 6, "None in this month.", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        return
    rows = [["Opening balance", "", "", credits(statement.opening)], *rows]
    rows.append(["Closing balance", "", "", credits(statement.closing)])
    _table(pdf, ["What", "Model", "Count", "Credits"], rows, (52, 60, 22, 40), ("L", "L", "R", "R"))


def _receipts(pdf: FPDF, statement: Statement) -> None:
    if not statement.receipts:
        return
    pdf.ln(6)
    _title(pdf, "Purchases")
    _font(pdf, 9.5)
    for each in statement.receipts:
        amount = f"{_money(each.cents)} {each.currency.upper()}"
        if each.tax_cents:
            amount += f" and {_money(each.tax_cents)} of tax"
        pdf.cell(0, 5.5, f"{each.at:%Y-%m-%d}   {amount}   ", new_x=XPos.END)
        _font(pdf, 9.5, color=(30, 80, 180) if each.url else FAINT)
        pdf.cell(
            0, 5.5, "receipt" if each.url else each.purchase_id, link=each.url, new_x=XPos.LMARGIN, new_y=YPos.NEXT
        )
        _font(pdf, 9.5)


def _proof(pdf: FPDF, statement: Statement, content_hash: str) -> None:
    pdf.ln(8)
    for name, value in (("Ledger head", statement.ledger_head), ("Statement hash (SHA-256)", content_hash)):
        if not value:
            continue
        _font(pdf, 8, color=FAINT)
        pdf.cell(42, 4.5, name)
        pdf.set_font("Courier", size=7.5)
        pdf.cell(0, 4.5, value, new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def _title(pdf: FPDF, text: str) -> None:
    _font(pdf, 12, "B")
    pdf.cell(0, 7, text, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.ln(1)


def _table(
    pdf: FPDF, columns: list[str], rows: list[list[str]], widths: tuple[int, ...], aligned: tuple[str, ...]
) -> None:
    _font(pdf, 9.5)
    pdf.set_draw_color(*LINE)
    pdf.set_fill_color(255)  # of the rows: a heading's style would stay
    heading = FontFace(emphasis="BOLD", color=INK, fill_color=BAND)
    with pdf.table(
        col_widths=widths,
        text_align=aligned,
        borders_layout="HORIZONTAL_LINES",
        headings_style=heading,
        line_height=6,
        padding=(0.6, 1.5),
        width=int(pdf.epw),
        align="LEFT",
    ) as table:
        for number, cells in enumerate([columns, *rows]):
            row = table.row()
            is_total = number in (1, len(rows))
            for cell in cells:
                row.cell(_latin(cell), style=FontFace(emphasis="BOLD") if is_total else None)


def _font(pdf: FPDF, size: float, style: str = "", color: tuple[int, int, int] = INK) -> None:
    pdf.set_font("Helvetica", style=style, size=size)
    pdf.set_text_color(*color)


def _lettered(pdf: FPDF, size: float, text: str, *, color: tuple[int, int, int] = INK) -> str:
    """Set the font that knows the letters of `text`, and return what of it can be written."""
    _font(pdf, size, color=color)
    if text == _latin(text):
        return text
    if "dejavu" not in pdf.fonts:
        pdf.add_font("dejavu", fname=FONT_OF_MORE_LETTERS)
    pdf.set_font("dejavu", size=size)
    font = pdf.fonts["dejavu"]
    assert isinstance(font, TTFFont)
    return "".join(letter if ord(letter) in font.cmap else "?" for letter in text)


def _money(cents: int) -> str:
    return f"{cents // 100:,}.{cents % 100:02d}"


def _latin(text: str) -> str:
    return text.encode("latin-1", "replace").decode("latin-1")


def credits(amount: MicroCredits) -> str:
    """Credits with thousands apart, and no more decimals than there are.

    >>> credits(-1_234_567_800_000)
    '-1,234,567.8'
    """
    whole, rest = divmod(abs(amount), UCR_PER_CREDIT)
    decimals = f".{rest:06d}".rstrip("0") if rest else ""
    return f"{'-' if amount < 0 else ''}{whole:,}{decimals}"
