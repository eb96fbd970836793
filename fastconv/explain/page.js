// Marks what a cell was made of (from) and what it is part of (to), by the links of the layers.
function fastconvWalk(root, data) {
  var said = root.querySelector(".said"), hint = said.textContent, arrays = {}, marked = [];
  root.querySelectorAll("table").forEach(function (table) {
    var place = table.dataset.c.split(",").map(Number), name = table.dataset.a;
    table.querySelectorAll("td").forEach(function (td) {
      var p = td.dataset.p.split(",").map(Number);
      var cell = { td: td, a: name, n: place[0], c: place[1], f: place[2], i: p[0], j: p[1], v: Number(td.dataset.v) };
      td.cell = cell;
      (arrays[name] = arrays[name] || []).push(cell);
    });
  });

  // The tap of the window at pixel y under which cell x lies, or null.
  function tap(link, y, x) {
    var taps = [];
    for (var axis = 0; axis < 2; axis++) {
      var offset = (axis ? x.j : x.i) + link.lo[axis] - (axis ? y.j : y.i) * link.s[axis];
      if (offset < 0 || offset % link.d[axis] || offset / link.d[axis] >= link.k[axis]) return null;
      taps.push(offset / link.d[axis]);
    }
    return taps;
  }

  // How cells of a link's two ends belong together: null, "part", or "winner" of a max pool.
  function meets(link, y, x) {
    if (y.n !== x.n) return null;
    if (link.kind === "all") return "part";
    if (link.kind === "cell") return y.i === x.i && y.j === x.j && y.c === x.c ? "part" : null;
    if (link.kind === "pool" && y.c !== x.c) return null;
    if (!tap(link, y, x)) return null;
    if (!link.winners) return "part";
    if (link.winners[y.n][y.c][y.i][y.j] === x.i * link.width + x.j) return "winner";
    return link.back ? null : "part"; // an error goes to the winner alone
  }

  function mark(cell, name) {
    cell.td.classList.add(name);
    marked.push([cell.td, name]);
  }

  function find(name, test) {
    return (arrays[name] || []).filter(test)[0];
  }

  // A number of a convolution, or of an error that comes back through it, written out.
  function sum(link, cell, made) {
    var terms = [];
    made.forEach(function (other) {
      var y = link.back ? other : cell, x = link.back ? cell : other, at = tap(link, y, x);
      var w = find(link.w, function (k) { return k.i === at[0] && k.j === at[1] && k.c === x.c && k.f === y.c; });
      if (w && other.v) terms.push(other.v.toPrecision(3) + "*" + (w.v < 0 ? "(" + w.v.toPrecision(3) + ")" : w.v.toPrecision(3)));
    });
    var bias = link.b && find(link.b, function (b) { return b.j === cell.c; });
    if (bias) terms.unshift(bias.v.toPrecision(3));
    var more = terms.length > 24 ? " + ... " + (terms.length - 24) + " more" : "";
    return terms.slice(0, 24).join(" + ") + more;
  }

  function label(cell) {
    var kernel = /^d?w/.test(cell.a);
    return cell.a + "[" + (kernel ? [cell.i, cell.j, cell.c, cell.f] : [cell.n, cell.i, cell.j, cell.c]).join(",") + "]";
  }

  function leave() {
    marked.forEach(function (pair) { pair[0].classList.remove(pair[1]); });
    marked = [];
    said.textContent = hint;
  }

  function enter(cell) {
    leave();
    mark(cell, "here");
    var text = label(cell) + " = " + cell.td.dataset.v, written = "";
    data.links.forEach(function (link) {
      var upper = link.back ? link.source : link.target, lower = link.back ? link.target : link.source;
      var made = [], became = [];
      if (cell.a === upper || cell.a === lower) {
        (arrays[cell.a === upper ? lower : upper] || []).forEach(function (other) {
          var made_of = cell.a === upper, y = made_of !== !!link.back ? cell : other, x = y === cell ? other : cell;
          var how = meets(link, y, x);
          if (!how) return;
          (made_of ? made : became).push(other);
          mark(other, made_of ? (how === "winner" ? "won" : "from") : "to");
        });
      }
      if (link.w && made.length) written = sum(link, cell, made);
    });
    if (written) text += "\n  = " + written;
    said.textContent = text;
  }

  root.addEventListener("mouseover", function (event) {
    var td = event.target.closest("td");
    if (td && td.cell) enter(td.cell);
  });
  root.addEventListener("mouseleave", leave);
  root.querySelectorAll("input[type=radio]").forEach(function (input) {
    input.addEventListener("change", function () {
      root.querySelectorAll("[data-n]").forEach(function (grid) {
        grid.style.display = grid.dataset.n === input.value ? "" : "none";
      });
      leave();
    });
  });
}
