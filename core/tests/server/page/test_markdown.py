"""What an answer's text becomes. It is not trusted."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow  # a browser and a server

PYTHON = """Some **bold** words and `code`.

```python
def double(value: int) -> int:
    return 2 * value  # twice
```

| name | value |
| --- | ---: |
| one | 1 |

1. first
2. second
"""
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '<svg onload="alert(1)"><script>alert(1)</script></svg>',
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "[click](JaVaScRiPt:alert(1))",
    "[click](java&#10;script:alert(1))",
    "[click](&#106;avascript:alert(1))",
    "[click](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[click](vbscript:msgbox(1))",
    "[click](//example.invalid/x)",
    "<javascript:alert(1)>",
    "[a]: javascript:alert(1)\n\n[click][a]",
    '<a href="javascript:alert(1)" onmouseover="alert(1)">click</a>',
    '<iframe srcdoc="<script>parent.alert(1)</script>"></iframe>',
    '<form action="http://example.invalid/"><input name=attributes><button>x</button></form>',
    '<base href="http://example.invalid/">',
    '<meta http-equiv="refresh" content="0;url=http://example.invalid/">',
    "<style>body{display:none}</style>",
    '<link rel=stylesheet href="http://example.invalid/x.css">',
    '<div id="prompt" style="position:fixed;inset:0" data-action="edit">over everything</div>',
    "![alt](http://example.invalid/pixel.png)",
    '![" onerror="alert(1)](http://example.invalid/pixel.png "x" onerror="alert(1)")',
    "![alt](data:image/svg+xml;base64,PHN2Zy8+)",
    '```"><img src=x onerror=alert(1)>\ncode\n```',
    "```html\n<script>alert(1)</script><img src=x onerror=alert(1)>\n```",
    "`<img src=x onerror=alert(1)>`",
    "| <img src=x onerror=alert(1)> |\n| --- |\n| <script>alert(1)</script> |",
    "# <img src=x onerror=alert(1)>",
    "<pre><img src=x onerror=alert(1)></pre>",
    '<http://example.invalid/"onmouseover=alert(1)>',
    "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[<img src=x onerror=alert(1)>]]>",
    '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    "&lt;img src=x onerror=alert(1)&gt;",
]
HARMLESS = {
    *("A", "BLOCKQUOTE", "BR", "BUTTON", "CODE", "DEL", "DIV", "EM", "H3", "H4", "H5", "H6", "HR", "LI", "OL", "P"),
    *("PRE", "SPAN", "STRONG", "TABLE", "TBODY", "TD", "TH", "THEAD", "TR", "UL"),
}
ATTRIBUTES = {
    *("align", "aria-label", "class", "data-action", "href", "rel", "role", "start", "tabindex", "target", "title"),
    "type",
}


def test_markdown_is_shown_as_elements(page, ask):
    content = ask(page, PYTHON).locator(".content")
    assert content.locator("strong").inner_text() == "bold"
    assert content.locator("pre .hljs-keyword").first.inner_text() == "def"
    assert content.locator("td").nth(1).get_attribute("align") == "right"
    assert content.locator("ol li").all_inner_texts() == ["first", "second"]


def test_code_is_copied_as_it_was_written(open_page, echo, ask, until):
    page = open_page(echo, permissions=["clipboard-read", "clipboard-write"])
    answer = ask(page, PYTHON)
    answer.get_by_role("button", name="Copy the code").click()
    page.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == "def double(value: int) -> int:\n    return 2 * value  # twice"
    answer.get_by_role("button", name="Copy", exact=True).click()
    until(page, "navigator.clipboard.readText().then(text => text.startsWith('Some **bold**'))")


def test_what_a_model_writes_cannot_do_anything(page, ask):
    """One message with all of them, and each alone: an unclosed one may hide the next."""
    for text in (*HOSTILE, "\n\n".join(HOSTILE)):
        content = render(page, text)
        tags, attributes, links = content
        assert set(tags) <= HARMLESS, text
        assert set(attributes) <= ATTRIBUTES, text
        assert all(link.startswith(("http://", "https://", "mailto:")) for link in links), text
    # Through the server, too.
    ask(page, HOSTILE[1])
    assert page.locator(".assistant .content").inner_text() == HOSTILE[1]
    assert page.get_by_label("Message", exact=True).is_visible()


def render(page, text):
    """Render a text as answers are; return the names of its elements and attributes, and the links."""
    return page.evaluate(
        """async (text) => {
            const { MarkdownView } = await import(new URL("page/markdown.js", document.baseURI));
            const element = document.createElement("div");
            document.body.append(element);
            new MarkdownView(element).show(text);
            const inner = [...element.querySelectorAll("*")];
            const links = [...element.querySelectorAll("a[href]")].map((link) => link.href);
            await new Promise((resolve) => setTimeout(resolve, 5)); // for what would be loaded
            element.remove();
            return [inner.map((each) => each.tagName), inner.flatMap((each) => each.getAttributeNames()), links];
        }""",
        text,
    )


def test_html_itself_would_do_nothing_either(open_page, echo):
    """Were tags taken for HTML, what is left of them is harmless."""
    # Chromium reports handlers and styles also where text is only parsed.
    page = open_page(echo, expected=("Content Security Policy",))
    tags, attributes, links = page.evaluate(
        """async (texts) => {
            const { harmless } = await import(new URL("page/markdown.js", document.baseURI));
            const element = document.createElement("div");
            element.append(...texts.map(harmless), harmless(texts.join("")));
            document.body.append(element);
            const inner = [...element.querySelectorAll("*")];
            const links = [...element.querySelectorAll("a[href]")].map((link) => link.href);
            await new Promise((resolve) => setTimeout(resolve, 50)); // for what would be loaded
            element.remove();
            return [inner.map((each) => each.tagName), inner.flatMap((each) => each.getAttributeNames()), links];
        }""",
        HOSTILE,
    )
    assert set(tags) <= HARMLESS
    assert set(attributes) <= {"href", "rel", "target"}
    assert all(link.startswith(("http://", "https://", "mailto:")) for link in links)


def test_a_script_in_the_page_would_not_get_far(open_page, echo):
    """Were an element made after all, the page's policy stops it."""
    page = open_page(echo, expected=("Content Security Policy", "Trusted", "example.invalid"))
    tried = page.evaluate(
        """async () => {
            const stopped = [];
            addEventListener("securitypolicyviolation", ({ effectiveDirective }) => stopped.push(effectiveDirective));
            const done = [];
            const attempt = async (name, action) => {
                try {
                    await action();
                    done.push(name);
                } catch {
                    // as it has to be
                }
            };
            const element = document.createElement("div");
            await attempt("HTML", () => { element.innerHTML = "<img src=x onerror=alert(1)>"; });
            await attempt("handler", () => { element.setAttribute("onclick", "alert(1)"); });
            await attempt("script", () => {
                const script = document.createElement("script");
                script.text = "alert(1)";
                document.body.append(script);
            });
            await attempt("request", () => fetch("http://example.invalid/"));
            await attempt("image", () => new Promise((resolve, reject) => {
                const image = Object.assign(new Image(), { onload: resolve, onerror: reject });
                image.src = "http://example.invalid/pixel.png";
            }));
            await new Promise((resolve) => setTimeout(resolve, 50)); // for the events
            return [done, stopped];
        }"""
    )
    assert tried[0] == []
    assert {"require-trusted-types-for", "connect-src", "img-src"} <= set(tried[1])


def test_html_is_shown_as_it_was_written(page, ask):
    assert ask(page, "Use <b>bold</b> & &amp;").locator(".content").inner_text() == "Use <b>bold</b> & &"


def test_links_say_nothing_of_the_page(page, ask):
    link = ask(page, "[there](https://example.invalid/x)").get_by_role("link", name="there")
    assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    assert link.get_attribute("target") == "_blank"


def test_an_image_is_a_link(page, ask):
    answer = ask(page, "![a cat](https://example.invalid/cat.png)")
    assert answer.get_by_role("link", name="a cat").get_attribute("href") == "https://example.invalid/cat.png"
    assert answer.locator("img").count() == 0


def test_an_answer_that_grows_looks_like_the_whole_one(page):
    """Blocks that have not changed stay the same elements, so that a selection in them stays."""
    same, kept = page.evaluate(
        """async (text) => {
            const { MarkdownView } = await import(new URL("page/markdown.js", document.baseURI));
            const [growing, whole] = [document.createElement("div"), document.createElement("div")];
            const view = new MarkdownView(growing);
            view.show(text.slice(0, 60));
            const first = growing.firstElementChild;
            for (let end = 61; end <= text.length; end += 1) view.show(text.slice(0, end));
            new MarkdownView(whole).show(text);
            return [growing.isEqualNode(whole), first === growing.firstElementChild];
        }""",
        PYTHON,
    )
    assert (same, kept) == (True, True)


def test_deep_nesting_is_shown_as_something(page):
    for text in (">" * 5000, "[" * 20000, "- " * 3000, "*" * 30000, "`" * 20001, "![" * 10000):
        tags, _, _ = render(page, text)
        assert set(tags) <= HARMLESS
