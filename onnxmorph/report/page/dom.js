"use strict";
// Elements, numbers and names. All that a model says goes in as text: none of it is ever read as markup.

const NS = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "on") for (const [event, call] of Object.entries(value)) node.addEventListener(event, call);
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined));
  return node;
}
const h = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => filled(document.createElementNS(NS, tag), attributes, children);

// One line: control characters, and those that turn the direction of text, as escapes.
const plain = (text) => String(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
// The end of a long name, which tells more than its beginning.
const tail = (text, most) => {
  const line = plain(text);
  return line.length <= most ? line : `…${line.slice(line.length - most + 1)}`;
};

// -- numbers, as the terminal shows them ---------------------------------------------------------

function amount(number) {
  if (Math.abs(number) < 1000) return String(Number(number.toPrecision(4)));
  const exponent = Math.min(Math.floor(Math.log10(Number(Math.abs(number).toPrecision(3))) / 3), 6);
  return `${(number / 1000 ** exponent).toPrecision(3)} ${" kMGTPE"[exponent]}`;
}

function quantity(cost, number) {
  if (number === null || number === undefined) return "–";
  if (cost === "latency" || cost === "classic_latency") {
    const exponent = number ? Math.min(Math.max(Math.floor(Math.log10(Math.abs(number)) / 3), -3), 0) : 0;
    return `${(number / 1000 ** exponent).toPrecision(3)} ${["s", "ms", "µs", "ns"][-exponent]}`;
  }
  const text = amount(number);
  if (!/bytes|memory/.test(cost)) return text;
  return text.includes(" ") ? `${text}B` : `${text} B`;
}

const costName = (name) => plain(name).replaceAll("_", " ").replace("flops", "FLOPs").replace("macs", "MACs");
const whole = (number) => number.toLocaleString("en-US");
const percent = (part, of) => (of ? `${((100 * part) / of).toFixed(part && part / of < 0.0995 ? 1 : 0)} %` : "–");
const change = (before, after) => {
  if (!before) return "–";
  const share = Number(((100 * (after - before)) / before).toFixed(1));
  return `${share > 0 ? "+" : share < 0 ? "−" : "±"}${Math.abs(share).toFixed(1)} %`;
};
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const plural = (n, word, many) => `${whole(n)} ${n === 1 ? word : many || `${word}s`}`;

// -- what appears beside the pointer -------------------------------------------------------------

function tip(event, title, ...lines) {
  const box = document.getElementById("tip");
  box.replaceChildren(h("b", null, plain(title)), ...lines.map((line) => h("div", null, plain(line))));
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  const x = event.clientX + 14 + width > innerWidth ? event.clientX - 14 - width : event.clientX + 14;
  const y = event.clientY + 14 + height > innerHeight ? event.clientY - 14 - height : event.clientY + 14;
  box.style.left = `${Math.max(4, x)}px`;
  box.style.top = `${Math.max(4, y)}px`;
}
const untip = () => { document.getElementById("tip").hidden = true; };
