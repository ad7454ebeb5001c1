"""The look of the HTML page: one style sheet for desk, phone, print and dark.

Colours keep a contrast of at least 4.5 : 1 on their background, both light and dark.
"""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fff; --ink: #1b1d23; --quiet: #565a65; --line: #d9dbe1; --band: #f4f4f6; --link: #0b5cad;
  --holds: #17692f; --fails: #a8261c; --undecided: #805300;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15171c; --ink: #e8e9ed; --quiet: #a9adb9; --line: #363a45; --band: #20232b; --link: #7db8f5;
    --holds: #6fce88; --fails: #ff9288; --undecided: #e8b850;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main, footer { max-width: 72rem; margin: 0 auto; padding: 1rem 1.1rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 1rem 0 .6rem; overflow-wrap: break-word; }
h2 {
  font-size: 1.25rem; line-height: 1.3; margin: 2.2rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid var(--line);
}
h3 { font-size: 1.05rem; line-height: 1.3; margin: 1.6rem 0 .4rem; }
p, li { max-width: 46rem; overflow-wrap: break-word; }
p { margin: .6rem 0; }
a { color: var(--link); }
nav ol { padding-left: 1.3rem; }
nav ul { padding-left: 1rem; list-style: none; font-size: .92rem; }
nav a { display: inline-block; padding: .2rem 0; }
code { font: .9em ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
code { background: var(--band); padding: .1em .3em; border-radius: 3px; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }

.scroll { overflow-x: auto; max-width: 100%; }
table {
  border-collapse: separate; border-spacing: 0; font-size: .9rem; font-variant-numeric: tabular-nums;
  margin: .8rem 0;
}
caption { text-align: left; padding-bottom: .4rem; }
caption > span {
  position: sticky; left: 0; display: inline-block; max-width: min(46rem, 100vw - 5rem); font-size: .95rem;
}
th, td {
  padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap;
  vertical-align: top;
}
th[scope=row], th[scope=rowgroup], th:first-child, td:first-child, .text { text-align: left; }
th[scope=row], th[scope=rowgroup], th:first-child { font-weight: 600; }
.text { white-space: normal; min-width: 6.6rem; overflow-wrap: break-word; }
td code { white-space: nowrap; }
tbody tr > :first-child:not([scope=rowgroup]) { position: sticky; left: 0; background: var(--paper); }
.astro-table { margin-bottom: 2.2rem; }
thead th { background: var(--band); border-bottom: 2px solid var(--line); vertical-align: bottom; }
th[scope=colgroup] { text-align: center; }
th[scope=rowgroup] { color: var(--quiet); padding-top: .8rem; }
.published { color: var(--quiet); }
.published ~ .measured { display: block; }
.published:has(~ .measured) ~ .slash { display: none; }

details { border: 1px solid var(--line); border-radius: 6px; margin: .6rem 0; padding: 0 .8rem; }
summary { cursor: pointer; padding: .55rem 0; overflow-wrap: break-word; }
details[open] { padding-bottom: .6rem; }

.claims { list-style: none; padding: 0; margin: .6rem 0; }
.claims > li {
  max-width: none; padding: .7rem 0; border-bottom: 1px solid var(--line); display: grid;
  grid-template-columns: 7rem 1fr; gap: 0 1rem;
}
.claims > li > * { margin: 0; }
.claims .facts, .claims ul {
  grid-column: 2; color: var(--quiet); font-size: .9rem; font-variant-numeric: tabular-nums;
}
.claims ul { padding-left: 1.1rem; margin-top: .2rem; }
.verdict { font-weight: 700; white-space: nowrap; }
.holds { color: var(--holds); }
.fails { color: var(--fails); }
.undecided { color: var(--undecided); }
.not-run { color: var(--quiet); font-weight: 400; }

figure { margin: 1rem 0; }
img, video { display: block; max-width: 100%; height: auto; border-radius: 4px; background: #fff; }
.scroll > img { max-width: none; }
.clip .scroll { margin-top: .5rem; }
.key { list-style: none; padding: 0; margin: .4rem 0; font-size: .92rem; }
.key svg { vertical-align: middle; margin-right: .5rem; }
.beside { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
.beside > figure { margin: 0; min-width: 0; }
figcaption, small { color: var(--quiet); font-size: .88rem; }
figcaption { margin: .4rem 0; max-width: 46rem; overflow-wrap: break-word; }
footer { color: var(--quiet); }
footer td { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 12rem; }

@media (min-width: 60rem) {
  .clip { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); gap: 0 1rem; align-items: center; }
  .clip .scroll { margin: 0; }
  .clip .scroll > img { max-width: 100%; }
  .clip figcaption { grid-column: 1 / -1; }
}

@media (max-width: 34rem) {
  h1 { font-size: 1.45rem; }
  .claims > li { display: block; }
  th[scope=row] { white-space: normal; min-width: 6rem; max-width: 10rem; overflow-wrap: break-word; }
}

@media print {
  :root {
    color-scheme: light; --paper: #fff; --ink: #000; --quiet: #444; --line: #bbb; --band: #f2f2f2; --link: #000;
    --holds: #17692f; --fails: #a8261c; --undecided: #805300;
  }
  @page { size: A4; margin: 14mm 12mm; }
  @page wide { size: A4 landscape; }
  .wide { page: wide; }
  .wide table { font-size: 7pt; }
  .wide th, .wide td { padding: .15rem .2rem; }
  body { font-size: 10pt; }
  main, footer { max-width: none; padding: 0; }
  nav, .clip video { display: none; }
  .scroll { overflow: visible !important; break-inside: avoid; }
  p, figcaption, small { font-size: 9pt; max-width: none; }
  .clip { display: block; }
  .scroll > img { max-width: 100%; }
  table { font-size: 7.5pt; max-width: 100%; }
  th, td { white-space: normal; padding: .15rem .35rem; }
  thead { display: table-header-group; }
  .text { min-width: 0; }
  tbody tr > :first-child:not([scope=rowgroup]) { position: static; background: none; }
  td code { white-space: normal; }
  details:not([open]) { break-inside: avoid; }
  figure, tr, .claims > li { break-inside: avoid; }
  .beside { grid-template-columns: 1fr 1fr; }
  .key { break-inside: avoid; }
  h2, h3, caption, .key, .key + p { break-after: avoid; }
}
"""
