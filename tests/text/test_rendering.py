"""Templates are rendered in a process beside us: what hostile ones come to, and that nothing else changes."""

from __future__ import annotations

import datetime
import os
import signal
import threading
import time

import pytest
from chat_templates import as_dicts, with_source

from conftest import CHATML
from luthier.config.data import TextConfig
from luthier.core.errors import InputError
from luthier.core.types.examples import Chat, Message
from luthier.text import rendering
from luthier.text.encode import encode
from luthier.text.spans import spans
from luthier.text.template import load_template
from sentences import sentence


def user(text, **more):
    return Message("user", text, **more)


def answer(text, **more):
    return Message("assistant", text, **more)


ASKED, CHAT = [user("x")], [user("x"), answer("y")]


@pytest.fixture
def quick(monkeypatch):
    """A process with a short time to compute."""
    monkeypatch.setattr(rendering, "SECONDS", 0.2)
    monkeypatch.setattr(rendering, "PROCESS", rendering.Process())
    yield
    rendering.PROCESS.end()


def process() -> int:
    """The number of the process beside us."""
    return rendering.PROCESS.running().pid


HOSTILE = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "format": "{{ '{0.__class__.__base__.__subclasses__}'.format('')() }}",
    "globals": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "attr": "{{ ('' | attr('__class__')).mro() }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os }}",
    "mutation": "{{ messages.append(1) }}",
    "loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "quiet recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "forked recursion": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "range": "{{ range(10**9) | list }}",
    "big range": "{% for i in range(1000000000) %}{% endfor %}",
    "repeat": "{{ 'x' * 2000000000 }}",
    "repeat list": "{{ [0] * 2000000000 }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "doubling": "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling join": "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling block": (
        "{% set ns = namespace(x='xx') %}{% for i in range(60) %}"
        "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}"
    ),
    "center": "{{ 'x'.center(1000000000) | length }}",
    "center by map": "{{ ['x'] | map('center', 1000000000) | list | length }}",
    "width in %": "{{ ('%999999999d' % 1) | length }}",
    "width given to %": "{{ ('%*d' % (999999999, 1)) | length }}",
    "width in format": "{{ '{:>999999999}'.format(1) | length }}",
    "width given to format": "{{ '{:>{}}'.format(1, 999999999) | length }}",
    "width in the filter": "{{ '%999999999d' | format(1) | length }}",
    "indent": "{{ ('a\n' * 100000) | indent(100000) | length }}",
    "replace": "{{ ('x' * 10000000).replace('x', 'y' * 1000) | length }}",
    "replace filter": "{{ ('x' * 10000000) | replace('x', 'y' * 1000) | length }}",
    "replace in a map": "{{ range(99999) | map('replace', '', 'x' * 3000) | join | length }}",
    "join": "{{ ('x' * 10000000).join(range(999) | map('string')) | length }}",
    "lipsum": "{{ lipsum(n=100000) | length }}",
    "much text": "{% for i in range(90000) %}{{ 'x' * 4000 }}{% endfor %}",
    "lists doubled": "{% set n = namespace(x=['a']) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "lists doubled, as JSON": (
        "{% set n = namespace(x=['a']) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson }}"
    ),
    "lists kept": "{% set n = namespace(x=[]) %}{% for i in range(600) %}{% set n.x = [n.x, ('x' ~ i) * 4000000] %}{% endfor %}",
    "tojson": "{{ ['x' * 16000000] * 1000 | tojson | length }}{{ (['x' * 16000000] * 1000) | tojson | length }}",
    "tojson with a width": "{{ [1] | tojson(indent=1000000000) }}",
    "join of a list": "{{ (['a' * 16000000] * 1000) | join | length }}",
    "bytes padded": "{{ 'a'.encode().ljust(4000000000) | length }}",
    "bytes replaced": "{{ ('a' * 10000).encode().replace('a'.encode(), ('b' * 1000000).encode()) | length }}",
    "many filters": "{{ range(99999)" + " | map('string')" * 200 + " | list | length }}" * 1,
    "filters that grow": "{{ ('<' * 16000000)" + " | forceescape" * 20 + " | length }}",
    "tags that do not close": "{% for i in range(90000) %}{% set x = (messages[0].content * 400000) | striptags %}{% endfor %}",
    "links": "{% for i in range(90000) %}{% set x = (messages[0].content * 4000) | urlize %}{% endfor %}",
    "words": "{% for i in range(90000) %}{% set x = (messages[0].content * 100000) | wordwrap(1) %}{% endfor %}",
    "translate": "{{ ('a' * 1000000).translate({97: 'b' * 1000000}) | length }}",
    "bytes of a number": "{{ (5).to_bytes(4000000000, 'big') | length }}",
    "shift and print": "{% set n = namespace(x=9) %}{% for i in range(20) %}{% set n.x = n.x * n.x %}{% endfor %}{{ n.x }}",
    "power squared": "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "sum of lists": "{{ ([['a' * 16000000] * 10000] * 10000) | sum(start=[]) | length }}",
    "blocks in blocks": "".join(
        f"{{% block a{i} %}}{{{{ self.a{i + 1}() }}}}{{{{ self.a{i + 1}() }}}}{{% endblock %}}" for i in range(40)
    )
    + "{% block a40 %}{% endblock %}",
    "recursive loop": "{% for i in [[]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "a list in itself, printed": "{% set n = namespace(x=1) %}{% for i in range(9000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
    "parentheses": "{{ " + "(" * 50000 + "1" + ")" * 50000 + " }}",
    "namespace with underscores": "{% set n = namespace(__class__=1) %}",
    "environment": "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "frames": "{% set g = messages | map('upper') %}{{ g.gi_frame.f_globals }}",
    "refuses": "{{ raise_exception('no system prompts here') }}",
    "missing": "{{ nothing.at.all }}",
    "division": "{{ 1 / 0 }}",
}


@pytest.mark.medium
@pytest.mark.parametrize("case", sorted(HOSTILE))
def test_hostile_template_ends_in_one_line(case, quick):
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        with_source(HOSTILE[case]).render([user("<!--www.a.b,(")], prompt=True)
    said = str(caught.value)
    assert "the chat template failed: " in said or "not a valid Jinja template" in said
    assert "\n" not in said and len(said) < 1200
    assert time.monotonic() - began < 60


def test_the_sandbox_hides_what_leads_out_of_it(quick):
    """No attribute of Python's inner life has a value, by whatever way it is asked for."""
    source = "{{ '' | attr('__class__') }}|{{ messages | map(attribute='__class__') | list }}|{{ ''.format.__self__ }}"
    assert with_source(source).render(ASKED, prompt=False) == "|[Undefined]|"


def test_after_a_template_was_ended_the_next_one_is_rendered(quick):
    sound, hostile = with_source(CHATML), with_source("{{ 'x' * 2000000000 }}")
    text, before = sound.render(CHAT, prompt=False), process()
    with pytest.raises(InputError, match=sentence("template ended", reason="it takes more than 512 MiB of memory")):
        hostile.render(ASKED, prompt=True)
    assert sound.render(CHAT, prompt=False) == text and process() != before


def test_a_template_that_is_ended_again_and_again_is_tried_no_more(quick):
    hostile = with_source("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")
    for _ in range(rendering.MAX_KILLS):
        with pytest.raises(InputError, match=sentence("template ended", reason="it takes longer than 0.2 s")):
            hostile.render(ASKED, prompt=True)
    before = process()
    with pytest.raises(InputError, match=sentence("template ended", reason="it takes longer than 0.2 s")):
        hostile.render(ASKED, prompt=True)
    assert process() == before


def test_one_row_that_has_the_process_ended_costs_no_other_row(quick):
    """Rows that are sent together with it are rendered all the same, and it alone is refused."""
    source = CHATML.replace("{{ m['content'] }}", "{{ m['content'] * (2000000000 if m['content'] == 'bomb' else 1) }}")
    template = with_source(source)
    rows = [Chat((user("bomb" if i == 7 else f"ask {i}"), answer("yes"))) for i in range(40)]
    made = encode(rows, template, template.tokenizer, TextConfig(), skip_bad=True)
    assert [tree.row for tree in made.trees] == [i for i in range(40) if i != 7]
    assert [(row.row, row.reason) for row in made.dropped] == [
        (7, "the chat template failed: it takes more than 512 MiB of memory")
    ]
    text = template.tokenizer.decode(made.trees[8].nodes[0].ids, special=True)
    assert text == template.render(rows[9].messages, prompt=False)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_dies_is_said_and_replaced(quick, number):
    template = with_source(CHATML)
    template.render(CHAT, prompt=False)
    os.kill(process(), number)
    with pytest.raises(InputError, match=sentence("template ended", reason=f"its process was ended by {number.name}")):
        template.render(CHAT, prompt=False)
    assert template.render(CHAT, prompt=False)


def test_rows_of_a_kind_are_sent_together(quick, monkeypatch):
    requests = []
    send = rendering.Child.send_line
    monkeypatch.setattr(rendering.Child, "send_line", lambda *of: (requests.append(of), send(*of))[1])
    template = with_source(CHATML)
    del requests[:]
    rows = [Chat((user(f"ask {i}"), answer("yes"))) for i in range(300)]
    encode(rows, template, template.tokenizer, TextConfig())
    assert len([request for _, request, _ in requests if "ask" in request]) == 1


@pytest.mark.medium
def test_the_many_prefixes_of_a_long_conversation_take_no_memory(quick, monkeypatch):
    """Together they are larger than all that the process may take."""
    monkeypatch.setattr(rendering, "SECONDS", 3.0)
    template = with_source(CHATML)
    talk = (user("a" * 14_000_000), *[answer("b"), user("c")] * 6, answer("d"))
    assert len(spans(talk, (), template)) == 15


def test_a_forked_process_starts_its_own(quick):
    template = with_source(CHATML)
    text, own = template.render(CHAT, prompt=False), process()
    ours, theirs = os.pipe()
    if (forked := os.fork()) == 0:
        try:
            os.write(theirs, f"{template.render(CHAT, prompt=False) == text and process() != own}".encode())
        finally:
            rendering.PROCESS.end()
            os._exit(0)
    os.close(theirs)
    os.waitpid(forked, 0)
    assert os.read(ours, 100) == b"True"
    os.close(ours)
    assert template.render(CHAT, prompt=False) == text and process() == own


def test_several_threads_ask_at_once(quick):
    template, wrong = with_source(CHATML), []

    def ask(name):
        for i in range(30):
            if f"{name} {i}<" not in template.render([user(f"{name} {i}"), answer("y")], prompt=False):
                wrong.append((name, i))

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_interrupt_loses_no_line(quick, monkeypatch):
    """What was asked and not yet read is never taken for the answer to something else."""
    template = with_source(CHATML)
    receive = rendering.Child.receive

    def interrupted(*of, **how):
        monkeypatch.setattr(rendering.Child, "receive", receive)
        raise KeyboardInterrupt

    monkeypatch.setattr(rendering.Child, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        template.render([user("first")], prompt=False)
    assert "second" in template.render([user("second")], prompt=False)


def test_the_process_sees_no_key_of_the_environment(quick, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    template = with_source(CHATML)
    template.render(CHAT, prompt=False)
    with open(f"/proc/{process()}/environ") as environ:
        assert "secret" not in environ.read()


@pytest.mark.parametrize(
    "value", [datetime.date(2024, 1, 1), b"x", {1, 2}, 10**5000], ids=["date", "bytes", "set", "digits"]
)
def test_a_value_that_is_not_json_is_told(value):
    template = with_source("{{ x }}" + CHATML)
    with pytest.raises(InputError, match=sentence("value not for a template")):
        template.render(CHAT, kwargs={"x": value}, prompt=False)


def test_every_json_value_and_every_character_reaches_the_template():
    template = with_source("{{ x }}{% for m in messages %}{{ m.content }}{% endfor %}")
    value = {"a": [1, -0.5, None, True, 1e300, "é\u2028\x00"]}
    text = template.render([user("\ud800 half, \U0001f642, \r\n")], kwargs={"x": value}, prompt=False)
    assert text == f"{value}\ud800 half, \U0001f642, \r\n"


def test_functions_do_what_they_do_elsewhere():
    source = (
        "{{ '%s %5.1f' % ('x', 5) }}|{{ '{{\"a\": {}}}'.format(1) }}|"
        "{{ '{} {:.2f}'.format(1, 2.5) }}|{{ '%d' | format(7) }}|{{ ['a', 'b'] | join(', ') }}"
        "|{{ 'abc' | replace('b', 'x') }}|{{ 'abc'.replace('b', 'x') }}|{{ ', '.join(['a', 'b']) }}|{{ 'a\nb' | indent(2) }}"
        "|{{ messages | join('-', attribute='role') }}|{{ messages | map(attribute='role') | list }}"
        "|{{ 'a' | center(9) }}|{{ 'a'.ljust(3) }}|{{ 2 ** 10 }}|{{ 'a b' | wordwrap(1) }}|{{ '<p>x</p>' | striptags }}"
        "|{{ 5 % 3 }}|{{ 1 + 2 }}|{{ 'a' + 'b' }}|{{ ['a'] + ['b'] }}"
    )
    template, chat = with_source(source), [user("x"), answer("y")]
    assert template.render(chat, prompt=True) == template.tokenizer.fast.apply_chat_template(
        as_dicts(chat), tokenize=False, add_generation_prompt=True
    )


def test_huge_source_is_refused(tmp_path):
    with pytest.raises(InputError, match=sentence("template too long")):
        with_source("x" * (1 << 19))
    (tmp_path / "huge.jinja").write_bytes(b"")
    os.truncate(tmp_path / "huge.jinja", 1 << 40)  # a hole: no disk, but it would be read into memory
    with pytest.raises(
        InputError,
        match=sentence("template too long", where="huge.jinja", most="262,144", fix="use another --text.template"),
    ):
        load_template(str(tmp_path / "huge.jinja"), with_source(CHATML).tokenizer)


def test_bounds_do_not_hinder_a_long_conversation():
    """A thousand turns of a real template stay far from the bounds, and each rendering starts anew."""
    template = with_source(CHATML)
    chat = [user("hello " * 50), answer("hi " * 50)] * 500
    for _ in range(3):
        assert len(template.render(chat, prompt=False)) > 200_000
