"use strict";
/* Opens what the page has drawn: treemaps down to functions, and tables of functions. Everything
   here comes from the JSON block of the page; text reaches the page as text only. */
(() => {
  const data = JSON.parse(document.getElementById("altaz-data").textContent);
  const { strings, deployments } = data;
  const SVG = "http://www.w3.org/2000/svg";
  const ROWS = 50;
  const separated = new Intl.NumberFormat("en-US");
  const count = (n) => separated.format(n);
  const kb = (n) => separated.format(Math.round(n / 100) / 10) + " kB";
  const share = (part, whole) => whole > 0 ? Math.round(100 * part / whole) + " %" : "–";

  const make = (name, attributes = {}, ...content) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...content);
    return element;
  };
  const draw = (name, attributes = {}, ...content) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...content);
    return element;
  };
  /* The end of a path says more than its beginning. */
  const short = (name) => {
    const parts = name.split("/");
    if (name.startsWith("/")) return parts[parts.length - 1] || name;
    return parts.length > 3 ? parts.slice(-2).join("/") : name;
  };

  /* ---- treemap ---- */

  /* Rectangles of areas in proportion, as square as may be; values are descending. */
  function squarify(values, x, y, w, h) {
    const out = [];
    const total = values.reduce((sum, v) => sum + v, 0);
    const area = total > 0 ? w * h / total : 0;
    const worst = (large, small, sum, side) =>
      Math.max(side * side * large / (sum * sum), sum * sum / (side * side * small));
    for (let from = 0; from < values.length;) {
      const side = Math.min(w, h);
      const large = values[from] * area;
      let sum = large, to = from + 1;
      for (; to < values.length; to++) {
        const next = values[to] * area;
        if (worst(large, next, sum + next, side) > worst(large, values[to - 1] * area, sum, side)) break;
        sum += next;
      }
      const upright = w >= h;
      const thick = side > 0 ? sum / side : 0;
      let at = 0;
      for (let i = from; i < to; i++) {
        const long = thick > 0 ? values[i] * area / thick : 0;
        out.push(upright ? [x, y + at, thick, long] : [x + at, y, long, thick]);
        at += long;
      }
      if (upright) { x += thick; w = Math.max(0, w - thick); } else { y += thick; h = Math.max(0, h - thick); }
      from = to;
    }
    return out;
  }

  /* Layers, components and functions of a deployment as a tree of areas. */
  function tree(deployment) {
    const known = deployment.layers.some((l) => l.covered.some((c) => c >= 0));
    const node = (name, owner, kind) => ({
      name, owner, kind, children: [], functions: 0, area: 0, size: 0, covered: 0, known: 0,
      aged: 0, age: 0, cves: null, looked: false,
    });
    const add = (to, from) => {
      to.functions += from.functions; to.area += from.area; to.size += from.size;
      to.covered += from.covered; to.known += from.known; to.aged += from.aged; to.age += from.age;
      to.looked ||= from.looked;
      if (from.cves) { to.cves ??= new Set(); for (const c of from.cves) to.cves.add(c); }
    };
    const root = node(deployment.name, "", "root");
    for (const l of deployment.layers) {
      const layer = node(l.name, l.owner, "layer");
      layer.children = l.components.map((c) => node(strings[c], l.owner, "component"));
      for (let i = 0; i < l.size.length; i++) {
        const f = node(strings[l.symbol[i]], l.owner, "function");
        f.functions = 1; f.size = l.size[i];
        if (l.covered[i] >= 0) { f.covered = l.covered[i]; f.known = f.size; }
        f.area = known ? f.covered : f.size;
        if (l.age && l.age[i] >= 0) { f.aged = f.size; f.age = f.size * l.age[i]; }
        if (l.cves) { f.looked = true; if (l.cves[i].length) f.cves = new Set(l.cves[i]); }
        const c = layer.children[l.component[i]];
        if (!c) continue;
        c.children.push(f);
        add(c, f);
      }
      layer.children.forEach((c) => add(layer, c));
      add(root, layer);
      root.children.push(layer);
    }
    const sort = (n) => {
      n.children = n.children.filter((c) => c.area > 0).sort((a, b) => b.area - a.area);
      if (n.kind !== "component") n.children.forEach(sort);
    };
    sort(root);
    root.known = known;
    return root;
  }

  const cves = (n) => n.cves ? n.cves.size : 0;

  /* What a colour says: class of an area and the words of its scale. */
  const colours = {
    owner: { of: (n) => n.owner, scale: [] },
    covered: {
      of: (n) => n.known > 0 ? "q" + Math.min(4, Math.floor(5 * n.covered / n.known)) : "qn",
      scale: [["q0", "up to 20 % executed"], ["q1", "40 %"], ["q2", "60 %"], ["q3", "80 %"], ["q4", "100 %"]],
    },
    age: {
      of: (n) => n.aged > 0 ? "q" + [1, 3, 6, 10, Infinity].findIndex((y) => n.age / n.aged <= y) : "qn",
      scale: [["q0", "up to 1 year old"], ["q1", "3"], ["q2", "6"], ["q3", "10"], ["q4", "older"], ["qn", "not known"]],
    },
    cves: {
      of: (n) => !n.looked ? "qn" : "q" + [0, 1, 3, 10, Infinity].findIndex((c) => cves(n) <= c),
      scale: [["q0", "no known CVE"], ["q1", "1"], ["q2", "up to 3"], ["q3", "up to 10"], ["q4", "more"]],
    },
  };

  function words(n, root) {
    const parts = [];
    if (n.kind !== "function") parts.push(count(n.functions) + " functions");
    parts.push(kb(n.size) + " whole");
    if (root.known) parts.push(share(n.covered, n.size) + " executed");
    if (n.aged > 0) parts.push((n.age / n.aged).toFixed(1) + " years old");
    if (n.looked) {
      const ids = [...(n.cves ?? [])].slice(0, 5).map((c) => strings[c]).join(", ");
      parts.push(ids ? count(cves(n)) + " known CVEs: " + ids : "no known CVE");
    }
    return n.name + ": " + parts.join(", ");
  }

  function treemap(figure, deployment, find) {
    const box = figure.querySelector(".map");
    const picture = box.querySelector("svg");
    const status = figure.querySelector("[data-status]");
    const path = figure.querySelector(".path");
    const scale = figure.querySelector(".scale");
    const root = tree(deployment);
    let place = [root], colour = "owner", cells = [];
    const text = { title: picture.querySelector("title"), desc: picture.querySelector("desc") };
    status.hidden = false;
    picture.setAttribute("role", "group");

    function cell(n, [x, y, w, h], parent, inner) {
      const kind = colours[colour].of(n);
      const g = draw("g", { class: (n.kind === "layer" ? "layer " : "part ") + kind });
      g.append(draw("rect", { x, y, width: Math.max(0, w), height: Math.max(0, h) }));
      if (w > 40 && h > 16) {
        const room = Math.floor((w - 8) / 6.6);
        const name = short(n.name);
        g.append(draw("text", { x: x + 5, y: y + 14 },
          name.length > room ? name.slice(0, Math.max(1, room - 1)) + "…" : name));
      }
      if (!inner) {
        g.classList.add("cell");
        g.setAttribute("role", "button");
        g.setAttribute("tabindex", cells.length ? "-1" : "0");
        g.setAttribute("aria-label", words(n, root));
        cells.push({ g, n, x: x + w / 2, y: y + h / 2 });
      } else {
        g.setAttribute("aria-hidden", "true");
      }
      g.append(draw("title", {}, words(n, root)));
      parent.append(g);
      return g;
    }

    function show(focus) {
      const at = place[place.length - 1];
      const width = box.clientWidth, height = Math.min(440, Math.max(320, width * .6));
      picture.replaceChildren(text.title, text.desc);
      picture.setAttribute("height", height);
      cells = [];
      let hidden = 0;
      const rects = squarify(at.children.map((c) => c.area), 0, 0, width, height);
      at.children.forEach((n, i) => {
        const [x, y, w, h] = rects[i];
        if (w < 1.5 || h < 1.5) { hidden++; return; }
        const g = cell(n, rects[i], picture, false);
        if (n.kind === "function" || w < 24 || h < 24) return;
        const head = h > 44 ? 20 : 2;
        const within = squarify(n.children.map((c) => c.area), x + 2, y + head, w - 4, h - head - 2);
        n.children.every((c, j) => {
          const r = within[j];
          if (r[2] >= 2 && r[3] >= 2) cell(c, r, g, true);
          return r[2] * r[3] >= 1;
        });
      });
      status.textContent = (hidden ? count(hidden) + " are too small to draw. " : "") +
        (at.kind === "root" ? "Enter or a click opens a part, Escape goes back, arrows move." : words(at, root));
      path.replaceChildren();
      place.forEach((n, i) => {
        if (i) path.append("›");
        const button = make("button", { type: "button" }, i ? short(n.name) : "all layers");
        button.disabled = i === place.length - 1;
        button.addEventListener("click", () => { place = place.slice(0, i + 1); show(true); });
        path.append(button);
      });
      scale.hidden = !colours[colour].scale.length;
      scale.replaceChildren(...colours[colour].scale.map(([kind, label]) =>
        make("span", {}, make("i", { class: kind }), label)));
      if (focus && cells.length) cells[0].g.focus();
    }

    const of = (event) => cells.find((c) => c.g === event.target.closest(".cell"));
    function open(c) {
      if (!c) return;
      if (c.n.kind === "function") { find(c.n.name); return; }
      place.push(c.n);
      show(true);
    }
    function move(from, dx, dy) {
      let best = null, least = Infinity;
      for (const c of cells) {
        const along = (c.x - from.x) * dx + (c.y - from.y) * dy;
        const aside = Math.abs((c.x - from.x) * dy) + Math.abs((c.y - from.y) * dx);
        if (along > 1 && along + 2 * aside < least) { least = along + 2 * aside; best = c; }
      }
      if (!best) return;
      from.g.setAttribute("tabindex", "-1");
      best.g.setAttribute("tabindex", "0");
      best.g.focus();
    }
    picture.addEventListener("click", (event) => open(of(event)));
    picture.addEventListener("keydown", (event) => {
      const c = of(event);
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.key === "Enter" || event.key === " ") open(c);
      else if (event.key === "Escape" && place.length > 1) {
        const left = place.pop();
        show(true);
        const back = cells.find((b) => b.n === left);
        if (back) { cells[0].g.setAttribute("tabindex", "-1"); back.g.setAttribute("tabindex", "0"); back.g.focus(); }
      } else if (way && c) move(c, ...way);
      else return;
      event.preventDefault();
    });
    const tell = (event) => { const c = of(event); if (c) status.textContent = words(c.n, root); };
    picture.addEventListener("focusin", tell);
    picture.addEventListener("pointerover", tell);
    for (const input of figure.querySelectorAll("input[type=radio]")) {
      input.addEventListener("change", () => { colour = input.value; show(false); });
    }
    let width = 0;
    const resized = () => { if (box.clientWidth !== width) { width = box.clientWidth; show(false); } };
    new ResizeObserver(resized).observe(box);
    resized();
  }

  /* ---- functions ---- */

  let lower = null;
  /* For each word, which strings hold it. */
  function holders(word) {
    lower ??= strings.map((s) => s.toLowerCase());
    const out = new Uint8Array(strings.length);
    for (let i = 0; i < out.length; i++) if (lower[i].includes(word)) out[i] = 1;
    return out;
  }

  function functions(section, deployment) {
    const input = section.querySelector("input");
    const status = section.querySelector(".status");
    const body = section.querySelector("tbody");
    const heads = [...section.querySelectorAll("th")];
    const pages = [...section.querySelectorAll("[data-page]")];
    const key = (th) => th.querySelector("button").dataset.sort;
    const columns = ["symbol", "component", "layer", "size", "covered", "first", "seen", "binary", "source", "cves"];
    let table = null, found = null, page = 0, sorted = { by: "size", down: true };

    /* All layers in one set of columns, made when they are first asked for. */
    function all() {
      if (table) return table;
      const whole = deployment.layers.reduce((sum, l) => sum + l.size.length, 0);
      table = Object.fromEntries(columns.map((c) => [c, new Array(whole)]));
      let at = 0;
      deployment.layers.forEach((l, layer) => {
        for (let i = 0; i < l.size.length; i++, at++) {
          table.symbol[at] = l.symbol[i];
          table.component[at] = l.components[l.component[i]];
          table.layer[at] = layer;
          table.size[at] = l.size[i];
          table.covered[at] = l.covered[i] < 0 ? -1 : l.size[i] > 0 ? l.covered[i] / l.size[i] : 0;
          table.first[at] = l.first[i];
          table.seen[at] = l.seen[i];
          table.binary[at] = l.binary[i];
          table.source[at] = l.source ? l.source[i] : -1;
          table.cves[at] = l.cves ? l.cves[i] : [];
        }
      });
      return table;
    }

    function search() {
      const t = all();
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean).map((word) => ({
        strings: holders(word),
        layers: deployment.layers.map((l) => l.name.includes(word)),
      }));
      found = [];
      for (let i = 0; i < t.size.length; i++) {
        if (wanted.every((w) => w.strings[t.symbol[i]] || w.strings[t.component[i]] ||
          w.strings[t.binary[i]] || w.layers[t.layer[i]])) found.push(i);
      }
      const column = t[sorted.by], sign = sorted.down ? -1 : 1;
      found.sort((a, b) => sign * (column[a] - column[b]) || t.symbol[a] - t.symbol[b]);
      page = 0;
      show();
    }

    function show() {
      const t = all();
      const from = page * ROWS, to = Math.min(found.length, from + ROWS);
      body.replaceChildren(...found.slice(from, to).map((i) => {
        const name = make("td", { class: "code" }, strings[t.symbol[i]]);
        const where = [strings[t.binary[i]]];
        if (t.source[i] >= 0) where.push(strings[t.source[i]]);
        where.push(...t.cves[i].map((c) => strings[c]));
        name.title = where.join(" · ");
        const number = (text) => make("td", { class: "n" }, text);
        return make("tr", {}, name,
          make("td", {}, strings[t.component[i]]),
          make("td", { class: "word" }, deployment.layers[t.layer[i]].name),
          number(count(t.size[i])),
          number(t.covered[i] < 0 ? "–" : share(t.covered[i], 1)),
          number(t.first[i] < 0 ? "–" : count(t.first[i] + 1)),
          number(count(t.seen[i])));
      }));
      const bytes = found.reduce((sum, i) => sum + t.size[i], 0);
      status.textContent = found.length
        ? count(from + 1) + "–" + count(to) + " of " + count(found.length) + " functions, " + kb(bytes)
        : "no function matches";
      pages[0].disabled = page === 0;
      pages[1].disabled = to >= found.length;
      for (const th of heads) {
        th.setAttribute("aria-sort", key(th) !== sorted.by ? "none" : sorted.down ? "descending" : "ascending");
      }
    }

    let timer = 0;
    input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 60); });
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") { clearTimeout(timer); search(); }
      if (event.key === "Escape" && input.value) { input.value = ""; search(); event.preventDefault(); }
    });
    for (const th of heads) {
      th.querySelector("button").addEventListener("click", () => {
        const by = key(th);
        const words = ["symbol", "component", "layer"].includes(by);
        sorted = { by, down: sorted.by === by ? !sorted.down : !words };
        search();
      });
    }
    for (const button of pages) {
      button.addEventListener("click", () => { page += Number(button.dataset.page); show(); });
    }
    return {
      start: () => { if (!table) search(); },
      find: (name) => {
        input.value = name;
        search();
        input.focus();
        input.scrollIntoView({ block: "center" });
      },
    };
  }

  /* ---- start ---- */

  for (const element of document.querySelectorAll("[data-script]")) element.hidden = false;
  /* Only what comes near the screen is built: a page holds many deployments. */
  const near = new Map();
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      observer.unobserve(entry.target);
      near.get(entry.target)();
    }
  }, { rootMargin: "600px" });
  const later = (element, start) => { near.set(element, start); observer.observe(element); };
  deployments.forEach((deployment, i) => {
    const section = document.querySelector(`.functions[data-deployment="${i}"]`);
    const figure = document.querySelector(`.explorer[data-deployment="${i}"]`);
    if (!section || !figure) return;
    const list = functions(section, deployment);
    later(section, list.start);
    later(figure, () => treemap(figure, deployment, list.find));
  });
  performance.mark("altaz-ready");
})();
