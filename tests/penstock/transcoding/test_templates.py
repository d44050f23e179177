import pytest

from penstock.transcoding.templates import InvalidTemplate, Wildcard, parse_template


def captured(template, path):
    parsed = parse_template(template)
    return {".".join(variable.field_path): variable.capture(path.split("/")[1:]) for variable in parsed.variables}


def test_a_template_is_its_segments_its_verb_and_its_variables():
    template = parse_template("/v1/{parent.name=shelves/*}/books/{id}:read")
    assert template.segments == ("v1", "shelves", Wildcard.ONE, "books", Wildcard.ONE)
    assert template.verb == "read"
    assert [(v.field_path, v.start, v.stop) for v in template.variables] == [(("parent", "name"), 1, 3), (("id",), 4, 5)]


def test_a_variable_of_one_segment_is_decoded_whole():
    assert captured("/v1/{name}", "/v1/a%2Fb%20%C3%A9") == {"name": "a/b é"}


def test_a_variable_of_several_segments_keeps_encoded_slashes():
    assert captured("/v1/{name=flows/*}", "/v1/flows/a%2fb%2Fc%20d") == {"name": "flows/a%2fb%2Fc d"}


def test_a_rest_variable_takes_everything_left_and_also_nothing():
    assert captured("/v1/{path=files/**}", "/v1/files/a/b/c") == {"path": "files/a/b/c"}
    assert captured("/v1/{path=files/**}", "/v1/files") == {"path": "files"}


def test_a_variable_that_is_not_utf8_is_refused():
    with pytest.raises(UnicodeDecodeError):
        captured("/v1/{name}", "/v1/%ff")


@pytest.mark.parametrize(
    "template",
    [
        *(
            "",
            "/",
            "v1",
            "/v1/",
            "/v1//a",
            "/v1/{a",
            "/v1/{a}}",
            "/v1/{a=}",
            "/v1/{a={b}}",
            "/v1/{1a}",
            "/v1/{a..b}",
            "/v1/{a=/x}",
        ),
        *("/v1/{a=**}/b", "/v1/**/b", "/v1/a*", "/v1/{a}/{a}", "/v1/{a=x/}"),
    ],
)
def test_what_is_no_template_is_refused(template):
    with pytest.raises(InvalidTemplate):
        parse_template(template)
