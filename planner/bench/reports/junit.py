"""JUnit XML: one test per case and family of rules, one for the suite."""

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from planner.bench.findings import Finding
from planner.bench.rules import FAMILIES
from planner.bench.verdict import Verdict


def junit(verdict: Verdict) -> str:
    """Return the verdict as XML; warnings and gains are the tests' output."""
    root = Element("testsuites", name="placement")
    suite = SubElement(root, "testsuite", name="placement")
    for result in verdict.results:
        for rule in FAMILIES:
            found = [each for each in verdict.of(result.name) if each.rule == rule]
            test = SubElement(
                suite, "testcase", classname=f"placement.{result.name}", name=rule
            )
            seconds = result.seconds if rule == FAMILIES[0] else None
            test.set("time", f"{seconds or 0:.3f}")
            if result.outcome == "skipped":
                SubElement(test, "skipped", message=result.message)
                continue
            _say(test, found)
    test = SubElement(suite, "testcase", classname="placement", name="suite", time="0")
    _say(test, [each for each in verdict.findings if not each.case])
    return xml(root)


def xml(root: Element) -> str:
    """Return an element as a file's text, with the counts JUnit readers want."""
    for suite in root.iter("testsuite"):
        for name, tag in (("tests", "testcase"), ("failures", "failure")):
            suite.set(name, str(len(list(suite.iter(tag)))))
        suite.set("skipped", str(len(list(suite.iter("skipped")))))
        suite.set("errors", "0")
    indent(root)
    text: str = tostring(root, encoding="unicode", xml_declaration=True)
    return text + "\n"


def _say(test: Element, found: list[Finding]) -> None:
    blocking = [each for each in found if each.level == "block"]
    if blocking:
        failure = SubElement(test, "failure", message=blocking[0].text)
        failure.set("type", blocking[0].rule)
        failure.text = "\n".join(
            f"{each.text}\n{each.why}".strip() for each in blocking
        )
    others = [each for each in found if each.level != "block"]
    if others:
        out = SubElement(test, "system-out")
        out.text = "\n".join(f"{each.level}: {each.text}" for each in others)
