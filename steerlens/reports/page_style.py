"""The frame, the style sheet and the script that every page shares."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header><h1>{title}</h1>{subtitle}</header>
{sections}
<footer>{footer}</footer>
</main>
{scripts}
</body>
</html>
"""

STYLE = """
:root{--page:#fcfcfb;--card:#ffffff;--ink:#1d232b;--quiet:#5c6570;--line:#e3e6ea;--accent:#0a6aa6;--code:#f3f5f7}
@media (prefers-color-scheme:dark){
:root{--page:#12161b;--card:#191e25;--ink:#e7eaee;--quiet:#9aa4b0;--line:#2c343d;--accent:#6db8e8;--code:#20262e}}
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.6 Inter,'Source Sans 3','Segoe UI',system-ui,
-apple-system,Helvetica,Arial,sans-serif}
main{max-width:68rem;margin:0 auto;padding:clamp(1.5rem,5vw,4rem) clamp(1rem,4vw,2.5rem) 3rem}
h1{font-size:clamp(1.6rem,4vw,2.3rem);line-height:1.2;letter-spacing:-.02em;font-weight:680;margin:0;
overflow-wrap:anywhere;text-wrap:balance}
h2{font-size:1.15rem;font-weight:640;letter-spacing:-.005em;margin:0 0 .9rem}
.subtitle{color:var(--quiet);font-size:1.06rem;margin:.5rem 0 0;max-width:46rem;overflow-wrap:anywhere}
section{margin-top:3.2rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:1px;margin:2.4rem 0 0;
background:var(--card);border:1px solid var(--line);border-radius:10px;overflow:hidden}
.tile{box-shadow:0 0 0 1px var(--line);padding:1.05rem 1.25rem 1.1rem}
.tile dt{color:var(--quiet);font-size:.88rem}
.tile dd{margin:.1rem 0 0;font-size:1.75rem;line-height:1.25;font-weight:660;letter-spacing:-.02em;
font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.tile small{display:block;font-size:.85rem;font-weight:400;letter-spacing:0;line-height:1.4;color:var(--quiet);
margin-top:.15rem}
nav ul{list-style:none;display:flex;flex-flow:row wrap;gap:.5rem 1.6rem;margin:1.6rem 0 0;padding:0}
nav a{color:var(--accent);text-underline-offset:.2em;text-decoration-thickness:1px}
#figures{margin-top:2.2rem}
figure{margin:0 0 1.6rem;background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:1rem 1rem .6rem;overflow-x:auto}
.plot{width:100%;min-width:34rem}
figcaption{color:var(--quiet);font-size:.93rem;padding:.2rem .6rem .7rem;max-width:52rem}
.wide,.table{overflow:auto}
.wide table{min-width:36rem}
.table{max-height:32rem;border:1px solid var(--line);border-radius:10px;background:var(--card);margin-bottom:1.4rem}
.table table{border-collapse:separate;border-spacing:0;width:100%;font-size:.88rem;line-height:1.45}
.table caption{position:sticky;left:0;text-align:left;color:var(--quiet);padding:.7rem .9rem .3rem}
.table caption:empty{display:none}
.table th{position:sticky;top:0;background:var(--card);text-align:left;font-weight:600;padding:.5rem .9rem;
border-bottom:1px solid var(--line);white-space:nowrap}
.table td{padding:.34rem .9rem;border-bottom:1px solid var(--line);max-width:26rem;overflow-wrap:break-word}
.table tr:last-child td{border-bottom:0}
.number{text-align:right!important;font-variant-numeric:tabular-nums;white-space:nowrap}
.settings{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:.9rem 2rem;margin:0}
.settings dt{color:var(--quiet);font-size:.85rem}
.settings dd{margin:0;overflow-wrap:anywhere}
.command{position:relative}
pre{margin:0;background:var(--code);border-radius:10px;padding:1rem 5.5rem 1rem 1.2rem;overflow-x:auto;
font:.88rem/1.55 'JetBrains Mono','SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre-wrap;
overflow-wrap:anywhere}
button{position:absolute;top:.65rem;right:.7rem;font:inherit;font-size:.82rem;color:var(--accent);
background:var(--card);border:1px solid var(--line);border-radius:7px;padding:.2rem .75rem;cursor:pointer}
button:hover{border-color:var(--accent)}
footer{margin-top:3.5rem;color:var(--quiet);font-size:.85rem}
.plot text:not(:where(.hoverlayer *,.heatmap-label *)){fill:var(--quiet)!important}
.plot .infolayer .gtitle,.plot .legend .legendtext,.plot .infolayer .annotation-text{fill:var(--ink)!important}
@media (prefers-color-scheme:dark){.plot .heatmaplayer,.plot .colorbar .cbfills{opacity:.88}}
@media (max-width:40rem){
figure::before,.table::before,.wide::before{content:"scroll sideways →";display:block;position:sticky;left:0;
color:var(--quiet);font-size:.8rem;padding:.2rem .6rem}}
@media print{
:root{--page:#fff;--card:#fff;--ink:#000;--quiet:#444;--line:#ccc;--accent:#000;--code:#f5f5f5}
body{font-size:11pt}main{max-width:none;padding:0}button,.modebar,figure::before,.table::before,.wide::before{display:none!important}
.table{max-height:none;overflow:visible}figure,.tile,tr{break-inside:avoid}section{margin-top:1.6rem}}
"""

SCRIPT = """
(() => {
  const options = JSON.parse(document.getElementById('plotly-config')?.textContent ?? '{}');
  for (const source of document.querySelectorAll('script[data-figure]')) {
    const figure = JSON.parse(source.textContent);
    Plotly.newPlot(source.dataset.figure, figure.data, figure.layout, options);
  }
  const plots = () => document.querySelectorAll('.js-plotly-plot');
  addEventListener('beforeprint', () => plots().forEach(plot => Plotly.Plots.resize(plot)));
  const button = document.getElementById('copy');
  if (button) button.addEventListener('click', () => {
    const code = button.previousElementSibling, range = document.createRange();
    range.selectNodeContents(code);
    const selection = getSelection();
    selection.removeAllRanges(); selection.addRange(range);
    document.execCommand('copy');
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = 'Copy'; selection.removeAllRanges(); }, 1500);
  });
})();
"""
