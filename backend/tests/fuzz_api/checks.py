"""What holds of every response, whatever the operation (contract auth-users.md 1.2, 1.3, production.md 6).

Loaded into schemathesis by run.py. FUZZ_TOKEN is the access token of the pass, or empty.
"""

import hashlib
import json
import os
import re

import schemathesis

# What every response carries, exactly once.
SECURITY_HEADERS = {
    "strict-transport-security": "max-age=31536000; includeSubDomains",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-xss-protection": "0",
    "referrer-policy": "strict-origin-when-cross-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "content-security-policy": "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'",
}
# Probes answer 503 with a shape of their own.
PROBES = ("/health", "/ready")
FIELD_ERROR_TYPES = {
    "missing",
    "extra_forbidden",
    "type_error",
    "string_too_short",
    "string_too_long",
    "pattern_mismatch",
    "out_of_range",
    "invalid_enum",
    "invalid_json",
    "control_characters",
}
CODE = re.compile(r"[A-Z][A-Z0-9_]*")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
FIELD = re.compile(r"(body|query|path)(\.[A-Za-z0-9_-]+)*")
# Stands for a value that a client sent. The brackets keep it from being repeated as a field's name,
# which is allowed for harmless names; only the middle is looked for.
MARKER_CORE = "e7c07f3a9cd1"
MARKER = f"<{MARKER_CORE}>"
# The same in a header that no handler reads.
HEADER_MARKER = "b41d5e90ac27"
TOKEN = os.environ.get("FUZZ_TOKEN", "")

if TOKEN:

    # Not cached: there is nothing to fetch, and a cached credential would be retried after a 401.
    @schemathesis.auth(refresh_interval=None)
    class Bearer:
        """Sends the access token of the pass."""

        def get(self, case, context):
            return TOKEN

        def set(self, case, data, context):
            case.headers["Authorization"] = f"Bearer {data}"


def marked(value):
    """The same JSON with every text replaced by the marker."""
    if isinstance(value, str):
        return MARKER
    if isinstance(value, list):
        return [marked(item) for item in value]
    if isinstance(value, dict):
        return {key: marked(item) for key, item in value.items()}
    return value


def is_chosen(case):
    """One valid generated request in four carries the marker: chosen by content, so that a run repeats."""
    meta = case.meta
    if meta is None or meta.phase.name.value != "fuzzing" or not meta.generation.mode.is_positive:
        return False
    content = repr((case.path_parameters, case.query, case.body)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).digest()[0] % 4 == 0


@schemathesis.hook
def before_call(context, case, kwargs):
    """Puts the marker into some requests."""
    case.headers["X-Fuzz-Marker"] = HEADER_MARKER
    if not is_chosen(case):
        return
    for container in (case.path_parameters, case.query):
        for name, value in (container or {}).items():
            container[name] = marked(value)
    if isinstance(case.body, (dict, list)):
        case.body = marked(case.body)


def one(response, name):
    """The only value of a header."""
    values = response.headers.get(name, [])
    assert len(values) == 1, f"{name}: expected once, found {len(values)} times"
    return values[0]


@schemathesis.check
def security_headers(ctx, response, case):
    """The seven security headers and the request id are there exactly once."""
    for name, expected in SECURITY_HEADERS.items():
        assert one(response, name) == expected, f"{name}: has another value"
    assert REQUEST_ID.fullmatch(one(response, "x-request-id")), "x-request-id: not of its form"


@schemathesis.check
def error_shape(ctx, response, case):
    """Every body that is not a success has the one shape."""
    is_probe = response.status_code == 503 and case.path in PROBES
    if response.status_code < 400 or is_probe or response.request.method == "HEAD":
        return
    assert one(response, "content-type").split(";")[0] == "application/json", "an error is not JSON"
    body = json.loads(response.content)
    assert isinstance(body, dict), "an error is not an object"
    expected = {"detail", "code", "request_id"} | ({"errors"} if response.status_code == 422 else set())
    assert set(body) == expected, f"an error has the fields {sorted(body)}"
    assert isinstance(body["detail"], str) and body["detail"], "detail: not a text"
    assert isinstance(body["code"], str) and CODE.fullmatch(body["code"]), "code: not of its form"
    assert body["request_id"] == one(response, "x-request-id"), "request_id: not that of the header"
    if response.status_code == 422:
        check_field_errors(body["errors"])
    check_companions(response)


def check_field_errors(errors):
    assert isinstance(errors, list) and errors, "errors: empty"
    for error in errors:
        assert set(error) == {"field", "type", "message"}, f"an item of errors has {sorted(error)}"
        assert FIELD.fullmatch(error["field"]), "errors.field: not a path"
        assert error["type"] in FIELD_ERROR_TYPES, "errors.type: unknown"
        assert isinstance(error["message"], str) and error["message"], "errors.message: not a text"


def check_companions(response):
    """Headers that belong to a status."""
    if response.status_code == 405:
        assert one(response, "allow"), "405 without Allow"
    if response.status_code in (429, 503):
        seconds = one(response, "retry-after")
        assert seconds.isdecimal() and int(seconds) >= 1, "Retry-After: not a number of seconds"


@schemathesis.check
def no_echo(ctx, response, case):
    """What a client sends comes back only where it was stored, and from a header never."""
    assert HEADER_MARKER.encode() not in response.content, "the body repeats a request header"
    if response.status_code >= 400:
        assert MARKER_CORE.encode() not in response.content, "an error repeats what was sent"
