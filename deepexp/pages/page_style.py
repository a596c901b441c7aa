"""How pages look: their style sheet, the script that sorts a table, and what they may load (nothing)."""

NOTHING_FROM_OUTSIDE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Content-Security-Policy: all that the page needs is in it, so a browser must not load anything else."""

CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1d2329; --faint: #5b6670; --line: #d5dbe0; --shade: #f3f5f7;
  --link: #0060a0; --good: #006b4e; --bad: #a63c00; --warning: #fff4e0; --warning-line: #e69f00; }
@media (prefers-color-scheme: dark) { :root { --paper: #15191d; --ink: #e4e8eb; --faint: #9ba6af; --line: #394149;
  --shade: #1f252b; --link: #74bdf0; --good: #4fcfa6; --bad: #ff9a61; --warning: #33270f; --warning-line: #b27c06; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; }
main { max-width: 82rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .4rem; }
p, ul { max-width: 50rem; margin: .6rem 0; overflow-wrap: break-word; }
a { color: var(--link); }
.subtitle { color: var(--faint); margin-top: 0; overflow-wrap: anywhere; }
.note { background: var(--shade); border-left: 4px solid var(--line); padding: .5rem .8rem; }
.note.warning { background: var(--warning); border-color: var(--warning-line); }
nav { background: var(--shade); border-radius: 6px; padding: .6rem 1rem; margin: 1rem 0;
  width: fit-content; max-width: 100%; }
nav ul { list-style: none; margin: 0; padding: 0; columns: auto 15rem; }
nav li { break-inside: avoid; padding: .1rem 0; }
nav li.level3 { padding-left: 1.1rem; font-size: .92em; }
.box { overflow-x: auto; max-width: 100%; }
.box.tall { max-height: min(80vh, 46rem); overflow-y: auto; }
.box.tall th { position: sticky; top: 0; }
.box:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; font-size: .875rem; margin: .5rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--faint); padding: .2rem 0 .4rem; max-width: min(50rem, 90vw); }
th, td { padding: .3rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
td { max-width: 28rem; overflow-wrap: break-word; }
th { background: var(--shade); vertical-align: bottom; white-space: nowrap; }
td.numeric, th.numeric { text-align: right; white-space: nowrap; }
td.good { color: var(--good); font-weight: 600; } td.bad { color: var(--bad); font-weight: 600; }
td.muted { color: var(--faint); }
tbody tr:hover { background: var(--shade); }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th button::after { content: "\\2195"; color: var(--faint); padding-left: .3em; }
th[aria-sort=ascending] button::after { content: "\\2191"; color: inherit; }
th[aria-sort=descending] button::after { content: "\\2193"; color: inherit; }
pre { background: var(--shade); padding: .6rem .8rem; margin: .5rem 0; border-radius: 6px; font-size: .84rem;
  width: fit-content; min-width: min(100%, 20rem); }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; align-items: flex-start; }
figure { margin: .5rem 0; min-width: 0; max-width: 100%; }
figure > .box { background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .4rem;
  width: fit-content; }
figure svg, figure img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--faint); font-size: .875rem; max-width: 38rem; padding: .3rem .2rem 0; }
@media (max-width: 40rem) { main { padding: 1rem .8rem 3rem; }
  h1 { font-size: 1.4rem; } th, td { padding: .3rem .45rem; } }
@media print { :root { --paper: #fff; --ink: #000; --faint: #444; --shade: #f3f3f3; }
  main { max-width: none; padding: 0; }
  nav { display: none; } .box, .box.tall { overflow: visible; max-height: none; }
  figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  th button::after { content: ""; } table { font-size: 8pt; } }
"""

SORT_BY_COLUMN = """
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const key = (row, column) => {
    const cell = row.cells[column], text = cell.dataset.key ?? cell.textContent.trim().replaceAll(",", "");
    if (/^\\d+(:\\d\\d)+$/.test(text)) return text.split(":").reduce((sum, part) => 60 * sum + Number(part), 0);
    const number = /^[-+\\u2212]?\\.?\\d/.test(text) ? parseFloat(text.replace("\\u2212", "-")) : NaN;
    return Number.isNaN(number) ? text : number;
  };
  const isEmpty = (value) => ["", "-", "\\u2013"].includes(value);
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const rows = [...body.rows].map((row) => [key(row, column), row]);
    rows.sort(([a], [b]) => {
      if (isEmpty(a) || isEmpty(b)) return isEmpty(a) - isEmpty(b);
      if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
      return sign * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
    });
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    body.append(...rows.map(([, row]) => row));
  }));
}
"""
