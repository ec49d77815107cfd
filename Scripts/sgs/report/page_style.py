"""Style sheet and script of the report page; both go into the page, which loads nothing from anywhere."""

STYLE = """
:root{color-scheme:light dark;--back:#fff;--panel:#f6f7f9;--text:#1b1f24;--soft:#5a6472;--line:#dfe3e8;--accent:#1f5fbf;
--weights:#d98324;--activations:#3f7fc4;--limit:#c0392b;--c0:#3f7fc4;--c1:#d98324;--c2:#4d9a52;--c3:#c9504c;--c4:#8d6bb8;
--c5:#3f9c97}
@media(prefers-color-scheme:dark){:root{--back:#14171b;--panel:#1d2126;--text:#e4e8ed;--soft:#9aa5b1;--line:#333a42;
--accent:#7db0f5;--weights:#e0a04e;--activations:#5b97d6;--limit:#ef7a6d;--c0:#5b97d6;--c1:#e0a04e;--c2:#6bb56f;
--c3:#e0746f;--c4:#a98bd0;--c5:#5bb5b0}}
*{box-sizing:border-box}
body{margin:0 auto;padding:20px 16px 60px;max-width:1560px;background:var(--back);color:var(--text);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:34px 0 6px}
p{margin:4px 0 10px;max-width:75ch;overflow-wrap:anywhere}
.soft{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(158px,1fr));gap:10px;margin:18px 0;padding:0}
.tiles div{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:10px 12px;min-width:0}
.tiles dt{color:var(--soft);font-size:.85rem}
.tiles dd{margin:0;font-size:1.3rem;font-weight:600;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.tiles dd small{display:block;font-size:.8rem;font-weight:400;color:var(--soft)}
.wide{overflow-x:auto;border:1px solid var(--line);border-radius:8px;background:var(--panel);padding:10px}
.wide:focus-visible,button:focus-visible,input:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
svg{display:block;width:100%;height:auto}
svg.w1200{min-width:1000px}
svg.w760{min-width:620px;max-width:960px;margin:0 auto}
text{font-size:13px;fill:var(--text)}
text.soft{fill:var(--soft);font-size:12px}
.grid{stroke:var(--line);stroke-width:1}
.rule{stroke:var(--soft);stroke-width:1}
.limit{stroke:var(--limit);stroke-width:1.5;stroke-dasharray:6 4}
.roof{stroke:var(--text);stroke-width:2}
.second{stroke-dasharray:6 4;stroke-width:1.5}
.c0{fill:var(--c0)}.c1{fill:var(--c1)}.c2{fill:var(--c2)}.c3{fill:var(--c3)}.c4{fill:var(--c4)}.c5{fill:var(--c5)}
.weights{fill:var(--weights)}.activations{fill:var(--activations)}
rect.weights,rect.activations{stroke:var(--panel);stroke-width:.6}
.d8{fill:var(--c0)}.d8w4{fill:var(--c2)}.d16{fill:var(--c1)}.d16w4{fill:var(--c4)}
circle{fill-opacity:.75;stroke:var(--panel);stroke-width:1}
rect:hover,circle:hover{stroke:var(--text);stroke-width:1.5}
.line{white-space:nowrap}
.key{display:inline-block;width:12px;height:12px;border-radius:3px;margin:0 5px 0 8px;vertical-align:-1px}
.key.weights{background:var(--weights)}.key.activations{background:var(--activations)}
.key.d8{background:var(--c0)}.key.d8w4{background:var(--c2)}
.key.d16{background:var(--c1)}.key.d16w4{background:var(--c4)}
.table{max-height:75vh;overflow:auto;padding:0}
table{border-collapse:collapse;width:100%;font-size:.87rem;font-variant-numeric:tabular-nums}
th,td{padding:4px 8px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
.t{text-align:left}
thead th,tfoot td,.name{position:sticky;background:var(--panel);z-index:1}
thead th{top:0;vertical-align:bottom}
tfoot td,tfoot th{bottom:0;font-weight:600;box-shadow:0 -1px var(--soft),0 4px var(--panel);border-bottom:0}
.name{left:0;max-width:min(18rem,34vw);overflow:hidden;text-overflow:ellipsis}
tbody .name{font-weight:400}
thead .name,tfoot .name{z-index:2}
tbody tr:hover>*{background:var(--back)}
th button{font:inherit;font-weight:600;color:inherit;background:none;border:0;padding:2px 0;cursor:pointer;
text-align:inherit;white-space:normal}
th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}
input{font:inherit;color:inherit;background:var(--back);border:1px solid var(--soft);border-radius:6px;padding:5px 10px;
width:20rem;max-width:100%}
.search{display:flex;gap:8px 12px;flex-wrap:wrap;align-items:center;margin:8px 0}
@media print{.wide,.table{overflow:visible;max-height:none}.search{display:none}}
"""

SCRIPT = """
"use strict";
const body = document.querySelector("#layers tbody"), rows = [...body.rows];
const find = document.querySelector("#find"), count = document.querySelector("#count");
const value = (row, column) => row.cells[column].textContent;
const heads = [...document.querySelectorAll("#layers thead th")];
const worded = heads.flatMap((head, column) => head.classList.contains("t") ? [column] : []);
const words = new Map(rows.map(row => [row, worded.map(column => value(row, column)).join(" ").toLowerCase()]));
const number = text => text === "\\u2013" ? -1 : parseFloat(text.replace(/[,%]/g, ""));
heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
  const letters = head.classList.contains("t");
  const down = head.hasAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : !letters;
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const sign = down ? -1 : 1;
  rows.sort((a, b) => sign * (letters ? value(a, column).localeCompare(value(b, column), undefined, {numeric: true})
    : number(value(a, column)) - number(value(b, column))));
  body.append(...rows);
}));
find.addEventListener("input", () => {
  const wanted = find.value.toLowerCase().split(/\\s+/);
  for (const row of rows)
    row.hidden = !wanted.every(word => words.get(row).includes(word));
  count.textContent = rows.filter(row => !row.hidden).length + " of " + rows.length + " layers";
});
"""
