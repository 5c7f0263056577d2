"""The report as one page of HTML that needs no other file: figures and pictures of a campaign, no customer."""

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from client.campaign.plots import arms_chart, deciles_chart, qini_chart
from client.campaign.report import Report
from client.campaign.words import lines_of, tables_of

_STYLE = """
:root { --ink: #1c2733; --soft: #68737f; --rule: #d5dade; --paper: #fff; }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; }
.eyebrow, .small { color: var(--soft); font-size: .85rem; margin: 0; }
ul { padding-left: 1.1rem; } li { margin: .25rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; padding-left: 0; }
svg { width: 100%; height: auto; }
@media print { body { margin: 0; max-width: none; } h2 { break-after: avoid; } table, svg { break-inside: avoid; } }
"""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Campaign {{ report.campaign }}</title>
<style>{{ style }}</style>
</head>
<body>
<p class="eyebrow">Campaign report · study {{ report.study }} · {{ report.status }} · for this institution alone</p>
<h1>{{ report.campaign }}</h1>
<p class="small">Contacts {{ report.window[0] }} to {{ report.window[1] }}, outcomes until {{ report.window[2] }}.
Money in {{ report.unit }}. In brackets: 95% intervals.</p>
<ul>
{% for line in lines %}<li>{{ line }}</li>
{% endfor %}</ul>
{% for title, picture in pictures %}<h2>{{ title }}</h2>
{{ picture }}
{% endfor %}
{% for table in tables %}<h2>{{ table.title }}</h2>
<div class="scroll"><table>
<thead><tr>{% for cell in table.head %}<th>{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table></div>
{% endfor %}
<h2>How it was computed</h2>
<p class="small">{{ report.methods }} Everybody counts in the group that she was drawn into, reached or not.</p>
</body>
</html>
"""


def page_of(report: Report) -> bytes:
    """Return a report as HTML, UTF-8."""
    pictures = [("Uplift in conversion", Markup(arms_chart(report)))]
    if len({item.name for item in report.of("decile")}) > 1:
        pictures.append(("Uplift by score decile", Markup(deciles_chart(report.of("decile")))))
    if report.qini is not None and len(report.qini.deciles) > 1:
        pictures.append(("Whom to approach first: the Qini curve", Markup(qini_chart(report.qini))))
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    text = environment.from_string(_PAGE).render(
        report=report, style=Markup(_STYLE), lines=lines_of(report), tables=tables_of(report), pictures=pictures
    )
    return text.encode()
