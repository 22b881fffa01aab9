// An answer's Markdown as elements. What a model writes is not trusted: HTML in it is shown as text, and whatever comes out
// of the Markdown passes a list of harmless elements. Nothing is loaded: an image is a link.

import { hljs } from "./code.js";
import "./vendor/dompurify/purify.min.js";
import { Marked } from "./vendor/marked/marked.esm.js";

const { DOMPurify } = globalThis; // its small form is a script, which sets this name
const HIGHLIGHT_LIMIT = 50_000; // characters; beyond, colours would cost more time than they are worth
const LINK = /^(?:https?:\/\/|mailto:)/i;
const ALLOWED = {
  ALLOWED_TAGS: [
    ...["p", "br", "hr", "h3", "h4", "h5", "h6", "strong", "em", "del", "code", "pre", "span", "blockquote"],
    ...["ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td", "a"],
  ],
  ALLOWED_ATTR: ["href", "title", "class", "start", "align"],
  ADD_URI_SAFE_ATTR: ["start", "align"],
  ALLOWED_URI_REGEXP: LINK,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

DOMPurify.addHook("afterSanitizeAttributes", (element) => {
  if (element.localName === "a") {
    element.setAttribute("target", "_blank");
    element.setAttribute("rel", "noopener noreferrer nofollow");
  }
  const classes = [...element.classList].filter((name) => /^(?:hljs|language)[\w+#.-]*_*$/.test(name) || name.endsWith("_"));
  if (classes.length) element.setAttribute("class", classes.join(" "));
  else element.removeAttribute("class");
});

function escaped(text) {
  return text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
}

function link(href, title, inner) {
  if (!LINK.test(href)) return `${inner} (${escaped(href)})`; // it leads nowhere from here, or runs something
  return `<a href="${escaped(href)}"${title ? ` title="${escaped(title)}"` : ""}>${inner}</a>`;
}

const marked = new Marked({
  gfm: true,
  breaks: true,
  // Nothing is taken for HTML, so that it is shown as it was written.
  tokenizer: { html: () => undefined, tag: () => undefined },
  renderer: {
    html: ({ text }) => escaped(text),
    heading({ tokens, depth }) {
      const level = Math.min(depth + 2, 6); // the page's own headings are above
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    code({ text, lang }) {
      const language = /^[\w+#.-]{1,30}/.exec(lang ?? "")?.[0] ?? "";
      const known = language && text.length < HIGHLIGHT_LIMIT && hljs.getLanguage(language);
      const inner = known ? hljs.highlight(text, { language, ignoreIllegals: true }).value : escaped(text);
      return `<pre><code class="language-${language}">${inner}</code></pre>`;
    },
    link({ href, title, tokens }) {
      return link(href, title, this.parser.parseInline(tokens));
    },
    image({ href, title, text }) {
      return link(href, title, escaped(text || "image"));
    },
    checkbox({ checked }) {
      return checked ? "☑ " : "☐ ";
    },
  },
});

/** The Markdown of one answer in an element. Blocks that did not change stay as they are: one can select in them. */
export class MarkdownView {
  #element;
  #raw = [];

  constructor(element) {
    this.#element = element;
    element.replaceChildren();
  }

  /** Shows `text`, and returns how many blocks it has. */
  show(text) {
    const tokens = blocks(text);
    tokens.forEach((token, index) => {
      if (this.#raw[index] === token.raw) return;
      const block = document.createElement("div");
      block.append(rendered(token));
      decorate(block);
      const old = this.#element.children[index];
      if (old) old.replaceWith(block);
      else this.#element.append(block);
    });
    while (this.#element.children.length > tokens.length) this.#element.lastElementChild.remove();
    this.#raw = tokens.map((token) => token.raw);
    return tokens.length;
  }
}

function blocks(text) {
  try {
    return marked.lexer(text).filter(({ type }) => type !== "space" && type !== "def");
  } catch (error) {
    console.debug(error); // such as quotations nested too deeply
    return [{ type: "text", raw: text, plain: true }];
  }
}

function rendered(token) {
  try {
    if (!token.plain) return harmless(marked.parser([token]));
  } catch (error) {
    console.debug(error);
  }
  const text = document.createElement("p");
  text.textContent = token.raw;
  return text;
}

/** Returns what is harmless of some HTML, as a fragment. */
export function harmless(html) {
  return DOMPurify.sanitize(html, ALLOWED);
}

/** Adds a bar with a button to code, and lets the keyboard scroll what is wide. */
function decorate(block) {
  for (const pre of block.querySelectorAll("pre")) {
    const language = /language-(\S+)/.exec(pre.firstElementChild?.className ?? "")?.[1] ?? "";
    const bar = document.createElement("div");
    const name = document.createElement("span");
    const copy = document.createElement("button");
    bar.className = "bar";
    name.textContent = language || "text";
    copy.type = "button";
    copy.textContent = "Copy";
    copy.dataset.action = "copy-code";
    copy.setAttribute("aria-label", "Copy the code");
    bar.append(name, copy);
    const frame = document.createElement("div");
    frame.className = "code";
    pre.replaceWith(frame);
    frame.append(bar, pre);
    scrollable(pre, language ? `Code, ${language}` : "Code");
  }
  for (const table of block.querySelectorAll("table")) {
    const frame = document.createElement("div");
    frame.className = "table";
    table.replaceWith(frame);
    frame.append(table);
    scrollable(frame, "Table");
  }
}

function scrollable(element, label) {
  element.tabIndex = 0;
  element.setAttribute("role", "group");
  element.setAttribute("aria-label", label);
}
