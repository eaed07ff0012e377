"""The report's page. It asks for nothing: style, script and pictures are in it."""

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="wsss {{ versions.wsss }}">
<title>{{ title }}</title>
<link rel="icon" href="data:,">
<style>
:root {
  color-scheme: light dark;
  --page: #fbfbfa; --card: #ffffff; --ink: #1d2126; --soft: #5d6570; --line: #d9dde2;
  --accent: #1f63c9; --heat: 31, 99, 201;
  --s1: #2f6fd0; --s2: #d97a1c; --s3: #2b9a66; --s4: #8a56c9; --s5: #c2456b; --s6: #4f7f8c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --card: #1c2026; --ink: #e6e9ed; --soft: #9aa4b0; --line: #353c45;
    --accent: #7fb0ff; --heat: 110, 165, 255;
    --s1: #6ea5ff; --s2: #f0a04b; --s3: #55c896; --s4: #b48cf0; --s5: #f07c9e; --s6: #86b9c7;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 27px; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 19px; margin: 40px 0 10px; }
h3 { font-size: 15px; margin: 18px 0 6px; }
p { margin: 6px 0; max-width: 78ch; }
.soft { color: var(--soft); }
nav { margin: 14px 0 0; display: flex; flex-wrap: wrap; gap: 4px 16px; }
a { color: var(--accent); }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0 0; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.tile { padding: 10px 16px; min-width: 130px; }
.tile b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.card { padding: 12px 14px; overflow-x: auto; }
.charts { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr)); }
.charts .card { min-width: 0; }
.charts h3, .card h3 { margin-top: 0; }
svg { width: 100%; height: auto; display: block; color: var(--ink); font-family: inherit; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px 4px 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; color: var(--soft); font-size: 13px; }
td.n, th.n { text-align: right; padding-right: 18px; }
code { font: 13px ui-monospace, "SF Mono", Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
.confusion td, .confusion th { padding: 3px 5px; text-align: center; border: 0; font-size: 12px; }
.confusion th.row { text-align: right; white-space: nowrap; }
.confusion th.col { vertical-align: bottom; height: 7em; }
.confusion th.col span { writing-mode: vertical-rl; transform: rotate(180deg);
  white-space: nowrap; }
.confusion td { min-width: 34px; border-radius: 3px; }
.confusion td.hot { color: var(--card); }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px;
  border: 1px solid var(--soft); margin-right: 6px; }
.shots { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); }
figure { margin: 0; }
figcaption { font-size: 13px; margin-top: 6px; }
.strip { display: flex; gap: 4px; }
.strip img { flex: 1 1 0; min-width: 0; width: 0; object-fit: contain; align-self: start; }
.wide img { width: 100%; display: block; }
img { cursor: zoom-in; border-radius: 4px; }
dialog { border: 0; padding: 0; background: transparent; max-width: 98vw; max-height: 98vh;
  overflow: visible; color: var(--ink); }
dialog::backdrop { background: rgba(0, 0, 0, .82); }
dialog img { max-width: 96vw; max-height: 90vh; min-width: min(70vw, 900px);
  object-fit: contain; cursor: zoom-out; display: block; }
dialog p { color: #fff; text-align: center; max-width: none; }
details summary { cursor: pointer; color: var(--soft); }
@media print { nav, dialog { display: none; } .card, figure { break-inside: avoid; } }
</style>
</head>
<body>
<main>
<header>
<h1>{{ title }}</h1>
<p class="soft">{{ summary }}</p>
<div class="tiles">
{% for tile in tiles %}<div class="tile"><b>{{ tile[0] }}</b><span>{{ tile[1] }}</span></div>
{% endfor %}</div>
<nav>{% for section in sections %}<a href="#{{ section[0] }}">{{ section[1] }}</a>
{% endfor %}</nav>
</header>

{% macro strips(shown) %}
<div class="shots">
{% for each in shown %}<figure class="card"><div class="strip">
{% for tile in each.tiles %}<img src="{{ tile[1] }}" alt="{{ tile[0] }} of {{ each.title }}"
 title="{{ tile[0] }}" tabindex="0">{% endfor %}
</div><figcaption>{{ each.title }}{% if each.note %} <span class="soft">({{ each.note
}})</span>{% endif %}</figcaption></figure>
{% endfor %}</div>
{% endmacro %}

{% if table %}
<h2 id="scores">Scores</h2>
{% for note in notes %}<p>{{ note }}</p>
{% endfor %}<div class="card"><table>
<tr><th>stage</th><th>set</th><th>labels</th><th class="n">mIoU configured</th>
<th class="n">mIoU best</th><th class="n">with CRF</th></tr>
{% for row in table %}<tr><td>{{ row[1] }}</td><td>{{ row[2] }}</td><td>{{ row[3] }}</td>
{% for cell in row[4:] %}<td class="n">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
<p class="soft">In percent. Behind @ stands the background score. "Best" was chosen with the masks
in sight, so that it says what a better score could give, not what the run gave.</p>
{% endif %}

{% if curves %}
<h2 id="curves">Background scores</h2>
<div class="charts">{% for each in curves %}<div class="card"><h3>{{ each[0] }}</h3>
{{ each[1] | safe }}</div>
{% endfor %}</div>
{% endif %}

{% if bars %}
<h2 id="classes">Classes</h2>
<div class="card">{{ bars | safe }}</div>
{% endif %}

{% if confusion %}
<h2 id="confusion">What is taken for what</h2>
<p class="soft">Of the pixels of each class (row), the percentage given each label (column), over
{{ confusion.pictures }} pictures of {{ split }} with masks.</p>
<div class="card"><table class="confusion">
<tr><th></th>{% for name in confusion.names %}<th class="col"><span>{{ name }}</span></th>
{% endfor %}</tr>
{% for row in confusion.rows %}<tr><th class="row">{{ row[0] }}</th>
{% for cell in row[1] %}<td{{ " class=hot" if cell[3] }}
 style="background: rgba(var(--heat), {{ cell[0] }})"
 title="{{ row[0] }} as {{ cell[2] }}: {{ cell[1] }} %">{{ cell[1] if confusion.numbers }}</td>
{% endfor %}</tr>
{% endfor %}</table></div>
{% endif %}

{% if tags %}
<h2 id="tags">Predicted classes and tags</h2>
<p class="soft">Over the {{ tags.pictures }} pictures of {{ split }} that have tags; no mask is
needed for this. A class counts as predicted from {{ tags.min_share }} % of the picture. In
{{ tags.empty }} of them nothing was predicted.</p>
<div class="card"><table>
<tr><th>class</th><th class="n">tagged</th><th class="n">predicted</th><th class="n">both</th>
<th class="n">precision</th><th class="n">recall</th></tr>
{% for row in tags.rows %}<tr><td><span class="swatch" style="background: {{ row[0] }}"></span>
{{ row[1] }}</td>{% for cell in row[2:] %}<td class="n">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% endif %}

{% if losses %}
<h2 id="trainings">Trainings</h2>
<div class="charts">{% for each in losses %}<div class="card"><h3>{{ each[0] }}</h3>
{{ each[1] | safe }}</div>
{% endfor %}</div>
{% endif %}

{% if ranked %}
<h2 id="pictures">The best, the median and the worst</h2>
<p class="soft">Of {{ split }}, by {{ ranked_by }}. Click a picture to enlarge it.</p>
{% for kind, shown in ranked.items() if shown %}<h3>{{ kind }}</h3>{{ strips(shown) }}
{% endfor %}
{% endif %}

{% if contradictions %}
<h2 id="contradictions">Predictions that contradict the tags</h2>
<p class="soft">{{ contradictions.count }} of {{ contradictions.of }} pictures of {{ split }}; the
worst come first. A tag may be wrong, too.</p>
{{ strips(contradictions.shown) }}
{% if contradictions.rest %}<details><summary>{{ contradictions.rest | length }} more</summary>
<div class="card"><table><tr><th>picture</th><th>predicted, no tag</th><th>tag, not
predicted</th></tr>
{% for row in contradictions.rest %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div></details>{% endif %}
{% endif %}

{% if panels %}
<h2 id="panels">From picture to prediction</h2>
{% for panel in panels %}<figure class="wide card" style="margin-bottom: 12px">
<img src="{{ panel[1] }}" alt="what each stage made of {{ panel[0] }}" tabindex="0"></figure>
{% endfor %}
{% endif %}

<h2 id="run">What was run</h2>
<div class="charts">
<div class="card"><h3>Data</h3><table>
{% for row in data %}<tr><td>{{ row[0] }}</td><td>{{ row[1] }}</td></tr>
{% endfor %}</table></div>
{% if times %}<div class="card"><h3>Times</h3><table>
{% for row in times %}<tr><td>{{ row[0] }}</td><td class="n">{{ row[1] }}</td></tr>
{% endfor %}</table></div>{% endif %}
</div>
<h3>Settings that differ from the defaults</h3>
<div class="card"><table><tr><th>setting</th><th>here</th><th>default</th></tr>
{% for each in settings %}<tr><td><code>{{ each.key }}</code></td>
<td><code>{{ each.value }}</code></td><td class="soft"><code>{{ each.default }}</code></td></tr>
{% endfor %}</table></div>
<p class="soft">Written with {% for name, version in versions.items() %}{{ name }} {{ version }}{{
", " if not loop.last }}{% endfor %}.</p>
</main>
<dialog id="enlarged"><img alt=""><p></p></dialog>
<script>
const dialog = document.getElementById("enlarged");
const large = dialog.querySelector("img");
function enlarge(image) {
  large.src = image.src;
  large.alt = image.alt;
  dialog.querySelector("p").textContent = image.alt;
  dialog.showModal();
}
document.addEventListener("click", (event) => {
  if (dialog.open) { dialog.close(); }
  else if (event.target.matches("main img")) { enlarge(event.target); }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("main img")) { enlarge(event.target); }
});
</script>
</body>
</html>
"""
