"use strict";
// The browser of samples. All text is put in as text; nothing of it is read as markup.
(() => {
  const data = JSON.parse(document.getElementById("samples-data").textContent);
  const MORE = 24; // cards drawn at once

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== null) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  function marked([text, kind]) {
    if (kind === "made up")
      return make("mark", { class: "made-up" }, text, make("span", { class: "said" }, " (not in the picture)"));
    if (kind === "true") return make("span", { class: "there" }, text);
    return document.createTextNode(text);
  }

  function stretch([text, changed, written]) {
    const inner = changed ? make("mark", { class: "changed" }, text) : document.createTextNode(text);
    return written ? make("span", { class: "written" }, inner) : inner;
  }

  function picture(key, alt) {
    const found = data.pictures[key];
    if (!found.uri) return make("div", { class: "picture" }, make("p", { class: "no-picture" }, found.problem));
    const { uri, width, height } = found;
    const style = found.pixelated ? "pixelated" : null;
    return make("div", { class: "picture" }, make("img", { src: uri, width, height, alt, class: style }));
  }

  function card(sample, alt, ...texts) {
    const label = `${alt}. ${sample.question}`;
    return make("li", { class: "card", tabindex: "-1", "aria-label": label }, picture(sample.picture, alt),
      make("div", { class: "texts" }, make("p", { class: "question" }, sample.question), ...texts));
  }

  // Answers in groups that say the same, in the order of their first.
  function alike(answers) {
    const groups = new Map();
    for (const one of answers) {
      const text = joined(one.pieces);
      groups.set(text, [...(groups.get(text) ?? []), one]);
    }
    return groups.values();
  }

  function answerCard(sample, arms) {
    const held = sample.objects.join(", ") || "no counted object";
    const list = make("dl");
    for (const [first, ...same] of alike(shown(sample, arms))) {
      const tally = make("span", { class: "tally" }, `${first.num_made} of ${first.num} made up`);
      const who = [first, ...same].map(({ arm }) =>
        make("span", { class: `who a${data.arms[arm].style}`, "data-arm": arm }, data.arms[arm].label));
      list.append(make("dt", {}, ...who.flatMap((one, at) => (at ? [" ", one] : [one])), tally));
      list.append(make("dd", {}, ...first.pieces.map(marked)));
    }
    return card(sample, `Test picture ${sample.uid}`, make("p", { class: "in-picture" }, `In the picture: ${held}`), list,
      make("p", { class: "badges" }, make("span", { class: "uid" }, sample.uid)));
  }

  function pairCard(sample) {
    const arm = data.arms[sample.arm];
    const badges = [arm.label, sample.kind, ...sample.notes.filter(([, value]) => value).map((note) => note.join(" "))];
    return card(sample, `Training pair ${sample.uid}`, make("dl", {},
      make("dt", {}, "Chosen"), make("dd", { class: "chosen" }, ...sample.chosen.map(stretch)),
      make("dt", {}, "Rejected"), make("dd", {}, ...sample.rejected.map(stretch))),
    make("p", { class: "badges" }, ...badges.map((text) => make("span", { class: "badge" }, text)),
      make("span", { class: "uid" }, sample.uid)));
  }

  // Search: every word has to occur somewhere in the sample.
  const joined = (pieces) => pieces.map(([text]) => text).join("");
  const answerText = (one, arms) => [one.uid, one.question, ...one.objects,
    ...one.answers.filter((said) => arms.has(said.arm)).map((said) => joined(said.pieces))].join("\n");
  const pairText = (one) => [one.uid, one.question, one.kind, data.arms[one.arm].label,
    joined(one.chosen), joined(one.rejected)].join("\n");
  const has = (text, words) => words.every((word) => text.toLowerCase().includes(word));

  const shown = (sample, arms) => sample.answers.filter((one) => arms.has(one.arm));
  const differs = (sample, arms) => new Set(shown(sample, arms).map((one) => one.made.join("\n"))).size > 1;
  function distance(sample, arms) {
    const base = sample.answers.find((one) => one.arm === data.base) ?? sample.answers[0];
    return Math.max(0, ...shown(sample, arms).map((one) => Math.abs(one.num_made - base.num_made)));
  }

  const field = (text, control) => make("label", { class: "field" }, text, control);
  const check = (text, checked, value = "") => {
    const box = make("input", { type: "checkbox", checked, value });
    return [make("label", {}, box, text), box];
  };
  const choice = (options) => make("select", {}, ...options.map(([value, text]) => make("option", { value }, text)));
  const search = () => make("input", { type: "search", size: "22", autocomplete: "off", spellcheck: "false" });

  function armBoxes(used, update) {
    const boxes = [];
    const set = make("fieldset", {}, make("legend", {}, "Arms"));
    for (const at of used) {
      const [label, box] = check(data.arms[at].label, true, String(at));
      boxes.push(box);
      set.append(label);
    }
    for (const [text, on] of [["all", true], ["none", false]]) {
      const button = make("button", { type: "button" }, text);
      button.addEventListener("click", () => { boxes.forEach((box) => { box.checked = on; }); update(); });
      set.append(button);
    }
    return [set, () => new Set(boxes.filter((box) => box.checked).map((box) => Number(box.value)))];
  }

  // A tab: its controls, the live count, and the cards that `find` gives for what is set.
  function panel(name, words, fill) {
    const status = make("p", { class: "status", role: "status", "aria-live": "polite" });
    const list = make("ul", { class: "cards" });
    const more = make("button", { type: "button" }, "Show more");
    const controls = make("div", { class: "controls" });
    let found = [];
    let drawn = 0;
    function draw(num) {
      list.append(...found.slice(drawn, num).map((one) => one()));
      drawn = Math.min(num, found.length);
      more.hidden = drawn === found.length;
      if (list.firstElementChild) list.firstElementChild.tabIndex = 0;
    }
    const state = fill(controls, () => update());
    function update() {
      found = state.find();
      list.replaceChildren();
      drawn = 0;
      status.textContent = `${found.length} of ${state.total} ${words} shown`;
      draw(MORE);
    }
    more.addEventListener("click", () => { const next = drawn; draw(drawn + MORE); list.children[next].focus(); });
    window.addEventListener("beforeprint", () => draw(found.length));
    controls.addEventListener("input", update);
    const root = make("div", { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}` },
      controls, status, list, more);
    return { name, root, list, more, update, draw: () => draw(drawn + MORE), search: state.search };
  }

  function answersPanel() {
    const used = [...new Set(data.answers.flatMap((one) => one.answers.map((said) => said.arm)))];
    return panel("answers", "pictures", (controls, update) => {
      const [set, arms] = armBoxes(used, update);
      const [differLabel, differ] = check("only pictures where these arms differ in what they make up", false);
      const order = choice([["drawn", "as drawn"], ["difference", "largest difference to the base first"]]);
      const words = search();
      controls.append(set, differLabel, field("Order", order), field("Search", words));
      const find = () => {
        const on = arms();
        const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
        const kept = data.answers.filter((one) => shown(one, on).length && has(answerText(one, on), asked)
          && (!differ.checked || differs(one, on)));
        if (order.value === "difference") kept.sort((a, b) => distance(b, on) - distance(a, on));
        return kept.map((one) => () => answerCard(one, on));
      };
      return { find, total: data.answers.length, search: words };
    });
  }

  function pairsPanel() {
    const used = [...new Set(data.pairs.map((one) => one.arm))];
    const kinds = [...new Set(data.pairs.map((one) => one.kind))];
    return panel("pairs", "pairs", (controls) => {
      const arm = choice([["", "all arms"], ...used.map((at) => [String(at), data.arms[at].label])]);
      const kind = choice([["", "all kinds"], ...kinds.map((one) => [one, one])]);
      const words = search();
      controls.append(field("Arm", arm), field("Kind", kind), field("Search", words),
        make("p", { class: "facts" }, make("mark", { class: "changed" }, "Marked"), " words differ; ",
          make("span", { class: "written" }, "underlined"), " is what the model wrote itself."));
      const find = () => {
        const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
        return data.pairs.filter((one) => (arm.value === "" || one.arm === Number(arm.value))
          && (kind.selectedIndex === 0 || one.kind === kind.value) && has(pairText(one), asked))
          .map((one) => () => pairCard(one));
      };
      return { find, total: data.pairs.length, search: words };
    });
  }

  const names = { answers: "Answers to test pictures", pairs: "Training pairs" };
  const panels = [data.answers.length && answersPanel(), data.pairs.length && pairsPanel()].filter(Boolean);
  const tabs = panels.map(({ name }) => make("button",
    { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}` }, names[name]));
  let current = 0;

  function open(at) {
    current = at;
    tabs.forEach((tab, one) => { tab.setAttribute("aria-selected", String(one === at)); tab.tabIndex = one === at ? 0 : -1; });
    panels.forEach((one, two) => { one.root.hidden = two !== at; });
  }
  tabs.forEach((tab, at) => {
    tab.addEventListener("click", () => open(at));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      open((at + step + tabs.length) % tabs.length);
      tabs[current].focus();
    });
  });

  const keys = [["j", "next sample (or \u2193 on a sample)"], ["k", "previous sample (or \u2191 on a sample)"],
    ["/", "search"], ["?", "this help"], ["Esc", "close, or leave the search"]];
  const close = make("button", { type: "button" }, "Close");
  const help = make("dialog", { "aria-labelledby": "help-title" }, make("h3", { id: "help-title" }, "Keys"),
    make("dl", {}, ...keys.flatMap(([key, text]) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, text)])), close);
  close.addEventListener("click", () => help.close());
  const helpButton = make("button", { type: "button", "aria-haspopup": "dialog" }, "Keys ?");
  helpButton.addEventListener("click", () => help.showModal());

  function step(by) {
    const { list, more, draw } = panels[current];
    const at = [...list.children].indexOf(document.activeElement.closest(".card"));
    if (at + by >= list.children.length && !more.hidden) draw();
    const next = list.children[Math.max(0, Math.min(at + by, list.children.length - 1))];
    if (!next) return;
    for (const one of list.children) one.tabIndex = one === next ? 0 : -1;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    if (event.target.matches("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      if (event.target.type !== "checkbox") return;
    }
    const arrow = event.target.closest(".card") ? { ArrowDown: 1, ArrowUp: -1 }[event.key] : undefined;
    const by = arrow ?? { j: 1, k: -1 }[event.key];
    if (by) step(by);
    else if (event.key === "/") panels[current].search.focus();
    else if (event.key === "?") help.showModal();
    else return;
    event.preventDefault();
  });

  document.getElementById("browser-root").replaceChildren(
    make("div", { class: "controls" }, make("div", { role: "tablist", "aria-label": "Samples" }, ...tabs), helpButton),
    ...panels.map((one) => one.root), help);
  panels.forEach((one) => one.update());
  open(0);
})();
