"""multipart/form-data in any chunks: the same parts, or a Problem that names the fault."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowserve.handlers.multipart import MultipartLimits, MultipartReader, Part
from rowserve.handlers.problem import Problem

TYPE = 'multipart/form-data; boundary="-frontier-"'


def part(data: bytes, name: str = "f", filename: str = "a.jpg", *more: str) -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    head = "\r\n".join([disposition, *more])
    return b"---frontier-\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + b"---frontier---\r\n"


def read(text: bytes, step: int = 1 << 20, content_type: str = TYPE, **limits: int) -> list[Part]:
    reader = MultipartReader(content_type, MultipartLimits(**limits))
    for at in range(0, len(text), step):
        reader.feed(text[at : at + step])
    return reader.finish()


def fault(text: bytes, status: int, content_type: str = TYPE, **limits: int) -> str:
    with pytest.raises(Problem) as caught:
        read(text, content_type=content_type, **limits)
    assert caught.value.status == status
    return caught.value.detail


def test_parts_in_order_with_their_names():
    text = body(part(b"one"), part(b"two", "g", "b.png", "Content-Type: image/png"), part(b"5", "top", ""))
    assert read(text) == [
        Part("f", "a.jpg", "", b"one"),
        Part("g", "b.png", "image/png", b"two"),
        Part("top", "", "", b"5"),
    ]


def test_what_is_a_file():
    assert Part("f", "a.jpg", "", b"").is_file
    assert Part("f", "", "image/png", b"").is_file
    assert Part("f", "", "application/octet-stream", b"").is_file
    assert not Part("f", "", "", b"").is_file
    assert not Part("f", "", "text/plain", b"").is_file


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "7bit", "nonsense"])
def test_a_transfer_encoding_is_never_decoded(encoding: str):
    text = body(part(b"aGVsbG8=\r\n=41", "f", "a", f"Content-Transfer-Encoding: {encoding}"))
    assert read(text)[0].data == b"aGVsbG8=\r\n=41"


DATA = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"-", b"--", b"-frontier-", b"\r\n---frontier", b"\0", b"x", b"\xff\xd8"]),
    max_size=12,
).map(b"".join)


@given(st.lists(DATA, min_size=1, max_size=5), st.data())
def test_any_chunking_gives_the_same_parts(contents: list[bytes], data: st.DataObject):
    contents = [content for content in contents if b"\r\n---frontier-" not in b"\r\n" + content + b"\r\n"]
    if not contents:
        return
    text = body(*[part(content, filename=f"{i}.jpg") for i, content in enumerate(contents)])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=30)))
    reader = MultipartReader(TYPE)
    for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True):
        reader.feed(text[start:stop])
    parts = reader.finish()
    assert [p.data for p in parts] == contents
    assert [p.filename for p in parts] == [f"{i}.jpg" for i in range(len(contents))]
    assert read(text, step=1) == parts


@settings(max_examples=300)
@given(st.data())
def test_mutated_bodies_raise_nothing_but_problems(data: st.DataObject):
    text = bytearray(body(part(b"one"), part(b"two\r\n", "g", "b.png", "Content-Type: image/png", "Content-Length: 5")))
    for _ in range(data.draw(st.integers(1, 8))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(
            st.sampled_from([*b'\r\n-":; =\0\xff', data.draw(st.integers(0, 255))])
        )
    cut = bytes(text[: data.draw(st.integers(0, len(text)))])
    status = 400
    try:
        read(cut, step=data.draw(st.integers(1, 80)), parts=3)
    except Problem as problem:
        status = problem.status
    assert status in (400, 413)


@pytest.mark.parametrize(
    ("content_type", "words"),
    [
        ("multipart/form-data", "names no boundary"),
        ("multipart/form-data; boundary=", "names no boundary"),
        ('multipart/form-data; boundary=""', "names no boundary"),
        (f"multipart/form-data; boundary={'x' * 300}", "impossible boundary"),
        ("multipart/mixed; boundary=x", "multipart/mixed"),
        ("", "missing"),
    ],
)
def test_a_content_type_without_a_boundary(content_type: str, words: str):
    assert words in fault(b"", 400, content_type)


def test_faults_are_named():
    whole = body(part(b"one"), part(b"two"))
    assert "the body is empty" in fault(b"", 400)
    assert "no parts" in fault(b"---frontier---\r\n", 400)
    wrong = fault(whole, 400, "multipart/form-data; boundary=other")
    assert "'other'" in wrong
    assert "no part begins" in wrong
    assert "before its closing boundary, after 1 whole part" in fault(whole[: len(whole) * 2 // 3], 400)
    assert "Content-Disposition" in fault(b"---frontier-\r\nX: y\r\n\r\nz\r\n---frontier---", 400)
    assert "part 2" in fault(body(part(b"one"), b"---frontier-\r\nnonsense\r\n\r\n\r\n"), 400)
    assert "failed to decode (part 1)" in fault(body(part(b"one").replace(b'filename="', b'filename="\xff')), 400)
    assert fault(b"junk" + whole, 400)


def test_limits_are_413():
    assert len(read(body(*[part(b"x")] * 3), parts=3)) == 3
    assert "more than 3 parts" in fault(body(*[part(b"x")] * 4), 413, parts=3)
    text = body(part(b"x" * 500))
    assert read(text, body=len(text))
    assert f"more than {len(text) - 1} bytes" in fault(text, 413, body=len(text) - 1)
    assert "part 1" in fault(body(part(b"x", "f", "a", f"X-Long: {'y' * 300}")), 413, header_line=200)
    assert "part 1" in fault(body(part(b"x", "f", "a", "A: 1", "B: 2", "C: 3")), 413, headers=2)


def test_a_large_part_is_gathered_as_it_comes():
    """Joining it at its end would hold the reactor up."""
    large = bytes(range(256)) * 4000
    parts = read(body(part(large), part(b"two")), step=60_001)
    assert isinstance(parts[0].data, memoryview)
    assert parts[0].data.readonly
    assert parts[0].data == large
    assert parts[1].data == b"two"


def test_after_a_fault_nothing_is_kept():
    reader = MultipartReader(TYPE, MultipartLimits(body=1000))
    reader.feed(part(b"x" * 200) + part(b"y" * 200)[:-9])
    assert reader._parts
    assert reader._chunks
    with pytest.raises(Problem):
        reader.feed(b"z" * 800)
    reader.feed(b"y" * 1000)  # what still comes is dropped without a word
    with pytest.raises(Problem) as caught:
        reader.finish()
    assert caught.value.status == 413
    assert not reader._parts
    assert not reader._chunks


def test_what_follows_the_end_is_no_part():
    assert [p.data for p in read(body(part(b"one")) + part(b"two"))] == [b"one"]
