"""Style sheet and script of the report pages; both go into the page, which loads nothing from anywhere."""

STYLE = """
:root{color-scheme:light dark;--back:#fff;--panel:#f6f7f9;--text:#1b1f24;--soft:#5a6472;--line:#dfe3e8;--accent:#1f5fbf;
--mark:#fff3cd;--good:#1d6b34;--bad:#a5281b;--weights:#c8741a;--activations:#3f7fc4;--limit:#c0392b;--c0:#3f7fc4;--c1:#c8741a;--c2:#458c4a;--c3:#c9504c;--c4:#8d6bb8;
--c5:#3f9c97}
@media(prefers-color-scheme:dark){:root{--back:#14171b;--panel:#1d2126;--text:#e4e8ed;--soft:#9aa5b1;--line:#333a42;
--accent:#7db0f5;--mark:#3d3413;--good:#7fd093;--bad:#ff9a8d;--weights:#e0a04e;--activations:#5b97d6;--limit:#ef7a6d;--c0:#5b97d6;--c1:#e0a04e;--c2:#6bb56f;
--c3:#e0746f;--c4:#a98bd0;--c5:#5bb5b0}}
*{box-sizing:border-box}
body{margin:0 auto;padding:20px 16px 60px;max-width:1560px;background:var(--back);color:var(--text);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:34px 0 6px}
h3{font-size:1rem;margin:18px 0 4px}
a{color:var(--accent)}
nav{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:.9rem}
.skip{position:absolute;left:-999rem}
.skip:focus{left:8px;top:8px;background:var(--back);padding:6px 10px;z-index:9}
main:focus{outline:0}
p{margin:4px 0 10px;max-width:75ch;overflow-wrap:anywhere}
.soft{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(158px,1fr));gap:10px;margin:18px 0;padding:0}
.tiles div{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:10px 12px;min-width:0}
.tiles dt{color:var(--soft);font-size:.85rem;overflow-wrap:anywhere}
.tiles dd{margin:0;font-size:1.3rem;font-weight:600;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.tiles dd small{display:block;font-size:.8rem;font-weight:400;color:var(--soft)}
.wide{overflow-x:auto;border:1px solid var(--line);border-radius:8px;background:var(--panel);padding:10px}
a:focus-visible,summary:focus-visible,.wide:focus-visible,button:focus-visible,input:focus-visible{
outline:2px solid var(--accent);outline-offset:2px}
svg{display:block;width:100%;height:auto}
svg.w1200{min-width:1000px}
svg.w280{max-width:420px}
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
a:focus-visible>.dot,a:hover>.dot{stroke:var(--text);stroke-width:2.5}
.alone{fill:var(--c0)}.so-far{fill:var(--c1)}.path{fill:none;stroke:var(--c1);stroke-width:1.5;stroke-opacity:.7}
.real{fill:var(--c0);fill-opacity:.45}.held{fill:none;stroke:var(--c1);stroke-width:1.6}
.outside{fill:var(--soft);fill-opacity:.16}.range{stroke:var(--limit);stroke-width:1.2;stroke-dasharray:5 3}
.d32{fill:var(--soft)}.d4{fill:var(--c2)}
rect:hover,circle:hover{stroke:var(--text);stroke-width:1.5}

.line{white-space:nowrap}
.key{display:inline-block;width:12px;height:12px;border-radius:3px;margin:0 4px 0 2px;vertical-align:-1px}
.key.weights{background:var(--weights)}.key.activations{background:var(--activations)}
.key.d8{background:var(--c0)}.key.d8w4{background:var(--c2)}
.key.alone,.key.real{background:var(--c0)}.key.so-far,.key.held{background:var(--c1)}
.key.outside{background:var(--soft);opacity:.35}.key.d4{background:var(--c2)}.key.d32{background:var(--soft)}
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
tbody tr{scroll-margin:3.2rem 0 2.6rem}
tbody tr:hover>*{background:var(--back)}
tbody tr:target>*{background:var(--mark)}
.facts td{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:9rem}
.facts{width:auto}
th button{font:inherit;font-weight:600;color:inherit;background:none;border:0;padding:2px 0;cursor:default;
text-align:inherit;white-space:normal}
th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}
input{font:inherit;color:inherit;background:var(--back);border:1px solid var(--soft);border-radius:6px;padding:5px 10px;
width:20rem;max-width:100%}
html.js th button{cursor:pointer}
.search{display:none}
html.js .search{display:flex;gap:8px 12px;flex-wrap:wrap;align-items:center;margin:8px 0}
.verdict{border-left:5px solid var(--line);padding:4px 0 4px 14px;font-size:1.05rem}
.verdict p{max-width:85ch}
.verdict.good{border-color:var(--good)}.verdict.bad{border-color:var(--bad)}
.verdict b.good{color:var(--good)}.verdict b.bad{color:var(--bad)}
.causes{margin:8px 0;padding-left:1.4rem;max-width:85ch}
.causes li{margin:0 0 10px;overflow-wrap:anywhere}
.causes b{font-weight:600}
.many{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(250px,100%),1fr));gap:12px;margin:8px 0}
figure{margin:0;background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:8px 10px;min-width:0}
figcaption{font-size:.85rem;overflow-wrap:anywhere}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(520px,100%),1fr));gap:14px;margin:8px 0}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:8px;margin:6px 0}
.pair img{width:100%;height:auto;display:block;border-radius:4px}
.pair div{font-size:.85rem;color:var(--soft);min-width:0}
details{margin:8px 0}
.bars{display:grid;grid-template-columns:minmax(90px,max-content) 1fr;gap:8px 12px;max-width:75ch;margin:10px 0}
.bars dd{margin:0;font-size:.85rem;min-width:0;overflow-wrap:anywhere}
.bars dd div{display:flex;height:16px;gap:1px;background:var(--panel)}
.bars span.d8{background:var(--c0)}.bars span.d16{background:var(--c1)}.bars span.d4{background:var(--c2)}
.bars span.d32{background:var(--soft)}
summary{cursor:pointer;color:var(--accent)}
pre{margin:0;font-size:.85rem;white-space:pre-wrap;overflow-wrap:anywhere}
@media print{body{max-width:none;padding:0}nav,html.js .search,.skip{display:none}
.wide,.table{overflow:visible;max-height:none}figure,.tiles div,tr{break-inside:avoid}
details::details-content{content-visibility:visible;display:block}}
"""

SCRIPT = """
"use strict";
document.documentElement.classList.add("js");
const value = (row, column) => row.cells[column].textContent;
const number = text => text === "\\u2013" || text === "" ? -Infinity : parseFloat(text.replace(/[,%]/g, ""));
for (const listing of document.querySelectorAll(".listing")) {
  const body = listing.querySelector("tbody"), rows = [...body.rows];
  const find = listing.querySelector("input"), count = listing.querySelector(".count");
  const heads = [...listing.querySelectorAll("thead th")];
  const worded = heads.flatMap((head, column) => head.classList.contains("t") ? [column] : []);
  const words = new Map(rows.map(row => [row, worded.map(column => value(row, column)).join(" ").toLowerCase()]));
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const letters = head.classList.contains("t");
    const down = head.hasAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : !letters;
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const sign = down ? -1 : 1;
    rows.sort((a, b) => {
      const [left, right] = [value(a, column), value(b, column)];
      if (letters) return sign * left.localeCompare(right, undefined, {numeric: true});
      const [x, y] = [number(left), number(right)];
      return x === y ? 0 : x === -Infinity ? 1 : y === -Infinity ? -1 : sign * (x - y);
    });
    body.append(...rows);
  }));
  const search = () => {
    const wanted = find.value.toLowerCase().split(/\\s+/);
    for (const row of rows)
      row.hidden = !wanted.every(word => words.get(row).includes(word));
    count.textContent = rows.filter(row => !row.hidden).length + " of " + rows.length + " " + listing.dataset.counted;
  };
  find.addEventListener("input", search);
  addEventListener("hashchange", () => {
    const row = rows.find(one => one.id === location.hash.slice(1));
    if (row && row.hidden) {
      find.value = "";
      search();
      row.scrollIntoView();
    }
  });
}
for (const chart of document.querySelectorAll(".marks")) {
  const marks = [...chart.querySelectorAll("a")];
  const keys = {ArrowLeft: at => at - 1, ArrowRight: at => at + 1, Home: () => 0, End: () => marks.length - 1};
  marks.forEach((mark, at) => {
    mark.setAttribute("tabindex", at ? "-1" : "0");
    mark.addEventListener("keydown", event => {
      const next = keys[event.key] && marks[keys[event.key](at)];
      if (!next) return;
      event.preventDefault();
      mark.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
  });
}
"""
