"""The style sheet of the page, whose hash is in its policy: light and dark, wide and narrow, and on paper."""

from typing import Final

SHEET: Final = """
:root{color-scheme:light dark;--paper:#f6f5f1;--card:#fff;--ink:#1c1e21;--soft:#5c6269;--line:#e3e0d8;--good:#176b45;
--goodback:#dff1e7;--bad:#a3241c;--badback:#fbe4e1;--wait:#8a5a00;--waitback:#fbefd5;--bar:#8fb8a5;--link:#1b5fa8}
@media (prefers-color-scheme:dark){:root{--paper:#15171a;--card:#1d2024;--ink:#e8e6e1;--soft:#a0a6ad;--line:#31353b;
--good:#7fd3a9;--goodback:#173427;--bad:#f3968d;--badback:#432320;--wait:#f0c265;--waitback:#3b2f14;--bar:#3f7a5f;
--link:#8ab8ee}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"DejaVu Sans",sans-serif}
main{max-width:56rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
header{display:flex;align-items:baseline;gap:1rem;flex-wrap:wrap}
h1{font-size:2rem;line-height:1.2;margin:0;letter-spacing:-.01em}
h2{font-size:1.05rem;margin:0 0 .75rem}
p{margin:0 0 .75rem}
a{color:var(--link)}
.lead{font-size:1.08rem;margin:.75rem 0 1.5rem;max-width:44rem}
.note{color:var(--soft);font-size:.92rem}
.state{margin:0;padding:.1rem .7rem;border-radius:1rem;font-size:.9rem;font-weight:600}
.state.good{background:var(--goodback);color:var(--good)}
.state.waiting{background:var(--waitback);color:var(--wait)}
.warning{margin:1.25rem 0 0;padding:.75rem 1rem;border-radius:.5rem;background:var(--badback);color:var(--bad)}
section{background:var(--card);border:1px solid var(--line);border-radius:.75rem;padding:1.25rem 1.5rem;margin:0 0 1rem}
.words{font:600 1.6rem/1.3 ui-monospace,"SF Mono",Menlo,"DejaVu Sans Mono",monospace;margin:0 0 .25rem;
overflow-wrap:anywhere}
table{width:100%;border-collapse:collapse}
th,td{text-align:left;vertical-align:top;padding:.45rem .75rem .45rem 0;border-top:1px solid var(--line)}
tbody tr:first-child>*{border-top:0}
thead th{font-size:.8rem;color:var(--soft);font-weight:500;border-top:0;padding-top:0}
thead+tbody tr:first-child>*{border-top:1px solid var(--line)}
tbody th{font-weight:500;color:var(--soft);white-space:nowrap;width:9rem}
.stages tbody th{color:var(--ink);font-weight:600}
th:last-child,td:last-child{padding-right:0}
.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
td.good{color:var(--good);font-weight:600}
td.bad{color:var(--bad);font-weight:600}
.bar{display:block;margin-top:.35rem}
.bar rect{fill:var(--bar)}
code{font:.82rem/1.5 ui-monospace,"SF Mono",Menlo,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
pre{margin:0;padding:1rem;border-radius:.5rem;background:var(--paper);border:1px solid var(--line);
font:.85rem/1.6 ui-monospace,"SF Mono",Menlo,"DejaVu Sans Mono",monospace;white-space:pre-wrap;overflow-wrap:anywhere}
footer{color:var(--soft);font-size:.88rem;margin-top:1.5rem}
@media (max-width:36rem){main{padding:1.5rem .9rem 3rem}section{padding:1rem}tbody th{width:auto;padding-right:.75rem}
table:not(.stages) tr{display:block;padding:.35rem 0;border-top:1px solid var(--line)}
table:not(.stages) :is(th,td){display:block;border:0;padding:0}.words{font-size:1.2rem}
.stages{font-size:.88rem}.stages :is(th,td){padding-right:.4rem}}
@media print{body{background:#fff}section{break-inside:avoid}}
"""
