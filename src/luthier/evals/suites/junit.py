"""Results as the JUnit XML that CI servers read: a suite for each group, a case for each case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from luthier.evals.suites.results import Outcome, Score

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(name: str, groups: Sequence[Score], all_: Score, outcomes: Sequence[Outcome]) -> str:
    """The XML. A case that fails carries its prompt, the answers that fail and why; a missed threshold is a case of its
    own, so that it fails the build even where single failures are allowed."""
    root = ElementTree.Element("testsuites", name=_clean(name))
    for group in groups:
        suite = ElementTree.SubElement(root, "testsuite", name=_clean(group.name))
        for outcome in outcomes:
            if outcome.case.group == group.name:
                _case(suite, outcome)
        _threshold(suite, group)
    if all_.threshold is not None:
        _threshold(ElementTree.SubElement(root, "testsuite", name="all cases"), all_)
    for suite in root:
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(sum(len(case) for case in suite)))
    for key in ("tests", "failures"):
        root.set(key, str(sum(int(suite.get(key) or 0) for suite in root)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True).decode() + "\n"


def _threshold(suite: ElementTree.Element, score: Score) -> None:
    if score.threshold is None:
        return
    case = ElementTree.SubElement(suite, "testcase", name="threshold", classname=suite.get("name", ""))
    if not score.met:
        message = f"{score.rate:.1%} of the cases pass, fewer than {score.threshold:.1%}"
        ElementTree.SubElement(case, "failure", message=message)


def _case(suite: ElementTree.Element, outcome: Outcome) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", name=_clean(outcome.case.name), classname=_clean(outcome.case.group)
    )
    if outcome.passed:
        return
    first = outcome.failures[0][1][0]
    body = [f"{outcome.case.where}", f"prompt: {outcome.case.prompt}"]
    for answer, why in outcome.failures:
        body += [f"answer: {answer}", *(f"  {reason}" for reason in why)]
    rate = f" (pass rate {outcome.rate:.0%}, {outcome.case.pass_rate:.0%} wanted)" if len(outcome.answers) > 1 else ""
    failure = ElementTree.SubElement(case, "failure", message=_clean(first + rate))
    failure.text = _clean("\n".join(body))


def _clean(text: str) -> str:
    """XML has no way to write most control characters: they become �."""
    return NOT_XML.sub("\ufffd", text)
