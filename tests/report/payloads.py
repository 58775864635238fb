"""What models, data and annotators may write to take over a page: each would call `own()` or load something where it ran."""

from __future__ import annotations

CALL = "own()"
FAR = "http://127.0.0.1:9/leak"

PAYLOADS = (
    f"<script>{CALL}</script>", f"</script><script>{CALL}</script>", f"<SCRIPT SRC={FAR}.js></SCRIPT>",
    f"<img src=x onerror={CALL}>", f"<img src={FAR}.png>", f"\"><img src=x onerror=\"{CALL}\">", f"'><svg/onload='{CALL}'>",
    f"<svg><script>{CALL}</script></svg>", f"<svg><animate onbegin={CALL} attributeName=x dur=1s>", f"<svg><use href='{FAR}#x'/></svg>",
    f"<math><mtext></form><form><mglyph><style></math><img src onerror={CALL}>",
    f"<noscript><p title=\"</noscript><img src=x onerror={CALL}>\">",
    f"<svg></p><style><a id=\"</style><img src=1 onerror={CALL}>\">", f"<a href=\"javascript:{CALL}\">click</a>",
    f"javascript:{CALL}", f"data:text/html,<script>{CALL}</script>", f"<iframe srcdoc=\"<script>parent.{CALL}</script>\"></iframe>",
    f"<iframe src=\"javascript:parent.{CALL}\"></iframe>", f"<object data=\"data:text/html,<script>{CALL}</script>\"></object>",
    f"<embed src={FAR}>", f"<meta http-equiv=refresh content=\"0;url={FAR}\">", f"<base href={FAR}/>",
    f"<link rel=stylesheet href={FAR}.css>",
    f"<style>body{{background:url({FAR})}}</style>", f"</style><style>@import '{FAR}.css';</style>", f"x\" style=\"background:url({FAR})",
    f"x' onmouseover='{CALL}' x='", f"x onfocus={CALL} autofocus tabindex=1", f"\" autofocus onfocus=\"{CALL}",
    f"<input autofocus onfocus={CALL}>",
    f"<details open ontoggle={CALL}>", f"<video><source onerror={CALL}></video>", f"<audio src=x onerror={CALL}>",
    f"<body onload={CALL}>",
    f"<form action={FAR}><button>send</button></form>", f"<button formaction=\"javascript:{CALL}\">x</button>",
    "<form id=data><input name=records></form>", "<a id=answer name=progress></a><img name=getElementById>", "__proto__", "constructor",
    f"<!--<img src=\"--><img src=x onerror={CALL}//\">", "<!-- no end", f"]]><script>{CALL}</script>",
    f"<![CDATA[<script>{CALL}</script>]]>",
    "<!--<script>", f"\\u003cscript\\u003e{CALL}\\u003c/script\\u003e", f"&lt;script&gt;{CALL}&lt;/script&gt;",
    f"${{{CALL}}}`${{{CALL}}}`",
    "{{ 7 * 7 }}{% raw %}{{ self.__init__.__globals__ }}", f"';{CALL};//", f"\";{CALL};//", f"\u2028{CALL}//",
    f"\ufeff<script>{CALL}</script>",
    f"\x00<script\x00>{CALL}</script>", f"\x1b]8;;{FAR}\x1b\\x", "\u202e>tpircs< )(nwo\u2066", f"<ScRiPt\x0b>{CALL}</sCrIpT\x0c>",
    f"<template><script>{CALL}</script></template>", f"<x contenteditable onblur={CALL}>", "<plaintext>", "<textarea>",
    "</textarea></title></p></main>",
    f"<svg><foreignObject><img src=x onerror={CALL}></foreignObject></svg>", f"<?xml-stylesheet href='{FAR}.xsl'?>",
    "<" * 2000, "\U000e003cscript\U000e003e",
)  # fmt: skip
