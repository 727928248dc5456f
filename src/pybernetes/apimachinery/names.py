"""The rules for names, keys and other short strings, with upstream's sentences.

A validator returns the list of what is wrong: empty for a valid value. Length is named
before form, as upstream does. `generate_name` completes a generateName.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

MAX_LABEL = 63
MAX_SUBDOMAIN = 253

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_QUALIFIED})?"
_C_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
_ENV_NAME = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_HTTP_HEADER = "[-A-Za-z0-9]+"
_PERCENT = "[0-9]+%"
_WILDCARD = rf"\*\.{_SUBDOMAIN}"
_PATH_PREFIXED = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"

_LABEL_RE = re.compile(_LABEL)
_SUBDOMAIN_RE = re.compile(_SUBDOMAIN)
_LABEL_1035_RE = re.compile(_LABEL_1035)
_QUALIFIED_RE = re.compile(_QUALIFIED)
_LABEL_VALUE_RE = re.compile(_LABEL_VALUE)
_C_IDENTIFIER_RE = re.compile(_C_IDENTIFIER)
_RELAXED_ENV_RE = re.compile("[ -<>-~]+")
_ENV_NAME_RE = re.compile(_ENV_NAME)
_CONFIG_KEY_RE = re.compile(_CONFIG_KEY)
_HTTP_HEADER_RE = re.compile(_HTTP_HEADER)
_PERCENT_RE = re.compile(_PERCENT)
_WILDCARD_RE = re.compile(_WILDCARD)
_PATH_PREFIXED_RE = re.compile(_PATH_PREFIXED)
_PORT_NAME_RE = re.compile("(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")


def regex_message(text: str, regex: str, *examples: str) -> str:
    """Upstream's sentence for a value that does not match (commas and spaces included)."""
    if not examples:
        return f"{text} (regex used for validation is '{regex}')"
    listed = " or ".join(f"'{example}', " for example in examples)
    return f"{text} (e.g. {listed}regex used for validation is '{regex}')"


def max_length_message(limit: int) -> str:
    return f"must be no more than {limit} bytes"


def range_message(low: int, high: int) -> str:
    return f"must be between {low} and {high}, inclusive"


_LABEL_MESSAGE = regex_message(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character",
    _LABEL,
    "my-name",
    "123-abc",
)
_SUBDOMAIN_MESSAGE = regex_message(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' "
    "or '.', and must start and end with an alphanumeric character",
    _SUBDOMAIN,
    "example.com",
)
_LABEL_1035_MESSAGE = regex_message(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with "
    "an alphabetic character, and end with an alphanumeric character",
    _LABEL_1035,
    "my-name",
    "abc-123",
)
_QUALIFIED_MESSAGE = regex_message(
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with "
    "an alphanumeric character",
    _QUALIFIED,
    "MyName",
    "my.name",
    "123-abc",
)
_LABEL_VALUE_MESSAGE = regex_message(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' "
    "or '.', and must start and end with an alphanumeric character",
    _LABEL_VALUE,
    "MyValue",
    "my_value",
    "12345",
)


def dns_label_errors(value: str) -> list[str]:
    """DNS-1123 label."""
    if len(value) <= MAX_LABEL and _LABEL_RE.fullmatch(value):
        return []
    return _errors(value, MAX_LABEL, _LABEL_RE, _LABEL_MESSAGE)


def dns_subdomain_errors(value: str) -> list[str]:
    """DNS-1123 subdomain: what most objects are named by."""
    if len(value) <= MAX_SUBDOMAIN and _SUBDOMAIN_RE.fullmatch(value):
        return []
    return _errors(value, MAX_SUBDOMAIN, _SUBDOMAIN_RE, _SUBDOMAIN_MESSAGE)


def dns_1035_label_errors(value: str) -> list[str]:
    """DNS-1035 label: starts with a letter."""
    return _errors(value, MAX_LABEL, _LABEL_1035_RE, _LABEL_1035_MESSAGE)


def _errors(value: str, limit: int, regex: re.Pattern[str], message: str) -> list[str]:
    errors = []
    if len(value.encode()) > limit:
        errors.append(max_length_message(limit))
    if not regex.fullmatch(value):
        errors.append(message)
    return errors


def wildcard_subdomain_errors(value: str) -> list[str]:
    return _errors(
        value,
        MAX_SUBDOMAIN,
        _WILDCARD_RE,
        regex_message(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS "
            "subdomain, which must consist of lower case alphanumeric characters, '-' or '.' "
            "and end with an alphanumeric character",
            _WILDCARD,
            "*.example.com",
        ),
    )


def qualified_name_errors(value: str) -> list[str]:
    """Keys of labels and annotations, names of resources: `[prefix/]name`."""
    if len(value) <= MAX_LABEL and _QUALIFIED_RE.fullmatch(value):
        return []
    parts = value.split("/")
    errors = []
    if len(parts) > 2:
        return [
            f"a qualified name {_QUALIFIED_MESSAGE} with an optional DNS subdomain prefix "
            "and '/' (e.g. 'example.com/MyName')"
        ]
    if len(parts) == 2:
        if not parts[0]:
            errors.append("prefix part must be non-empty")
        else:
            errors += [f"prefix part {message}" for message in dns_subdomain_errors(parts[0])]
    name = parts[-1]
    if not name:
        errors.append("name part must be non-empty")
    elif len(name.encode()) > MAX_LABEL:
        errors.append(f"name part {max_length_message(MAX_LABEL)}")
    if not _QUALIFIED_RE.fullmatch(name):
        errors.append(f"name part {_QUALIFIED_MESSAGE}")
    return errors


def label_value_errors(value: str) -> list[str]:
    if len(value) <= MAX_LABEL and _LABEL_VALUE_RE.fullmatch(value):
        return []
    return _errors(value, MAX_LABEL, _LABEL_VALUE_RE, _LABEL_VALUE_MESSAGE)


def c_identifier_errors(value: str) -> list[str]:
    if _C_IDENTIFIER_RE.fullmatch(value):
        return []
    return [
        regex_message(
            "a valid C identifier must start with alphabetic character or '_', followed by a "
            "string of alphanumeric characters or '_'",
            _C_IDENTIFIER,
            "my_name",
            "MY_NAME",
            "MyName",
        )
    ]


def env_name_errors(value: str) -> list[str]:
    """Names of environment variables (the relaxed rule, the default since 1.32)."""
    if _RELAXED_ENV_RE.fullmatch(value):
        return []
    return [
        "a valid environment variable name must consist only of printable ASCII characters "
        "other than '='"
    ]


def strict_env_name_errors(value: str) -> list[str]:
    if _ENV_NAME_RE.fullmatch(value):
        return _dot_errors(value)
    return [
        regex_message(
            "a valid environment variable name must consist of alphabetic characters, digits, "
            "'_', '-', or '.', and must not start with a digit",
            _ENV_NAME,
            "my.env-name",
            "MY_ENV.NAME",
            "MyEnvName1",
        ),
        *_dot_errors(value),
    ]


def config_key_errors(value: str) -> list[str]:
    """Keys of ConfigMaps and Secrets."""
    errors = _errors(
        value,
        MAX_SUBDOMAIN,
        _CONFIG_KEY_RE,
        regex_message(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            _CONFIG_KEY,
            "key.name",
            "KEY_NAME",
            "key-name",
        ),
    )
    return errors + _dot_errors(value)


def _dot_errors(value: str) -> list[str]:
    """What would mean another directory when the key becomes a file."""
    if value in (".", ".."):
        return [f"must not be '{value}'"]
    return ["must not start with '..'"] if value.startswith("..") else []


def port_name_errors(value: str) -> list[str]:
    """IANA service names."""
    if len(value) <= 15 and _PORT_NAME_RE.fullmatch(value):
        return []
    errors = []
    if len(value) > 15:
        errors.append("must be no more than 15 bytes")
    if not re.fullmatch("[-a-z0-9]*", value):
        errors.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        errors.append("must contain at least one letter (a-z)")
    if "--" in value:
        errors.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        errors.append("must not begin or end with a hyphen")
    return errors


def port_errors(value: int) -> list[str]:
    return [] if 1 <= value <= 65535 else [range_message(1, 65535)]


def user_id_errors(value: int) -> list[str]:
    return [] if 0 <= value <= 2**31 - 1 else [range_message(0, 2**31 - 1)]


# Groups keep to the same range.
group_id_errors = user_id_errors


def path_segment_errors(value: str, *, prefix: bool = False) -> list[str]:
    """Names that only have to fit into a URL (RBAC). A prefix may be '.' so far."""
    if value in (".", "..") and not prefix:
        return [f"may not be '{value}'"]
    return [f"may not contain '{bad}'" for bad in ("/", "%") if bad in value]


def http_header_errors(value: str) -> list[str]:
    if _HTTP_HEADER_RE.fullmatch(value):
        return []
    return [
        regex_message(
            "a valid HTTP header must consist of alphanumeric characters or '-'",
            _HTTP_HEADER,
            "X-Header-Name",
        )
    ]


def percent_errors(value: str) -> list[str]:
    if _PERCENT_RE.fullmatch(value):
        return []
    return [
        regex_message(
            "a valid percent string must be a numeric string followed by an ending '%'",
            _PERCENT,
            "1%",
            "93%",
        )
    ]


def ip_errors(value: str) -> list[str]:
    if parse_ip(value) is not None:
        return []
    return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]


def cidr_errors(value: str) -> list[str]:
    try:
        if "/" in value and "%" not in value:
            ipaddress.ip_network(value, strict=False)
            return []
    except ValueError:
        pass
    return ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]


def parse_ip(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, or None. Zones (`fe80::1%eth0`) are not addresses here."""
    try:
        return None if "%" in value else ipaddress.ip_address(value)
    except ValueError:
        return None


def fully_qualified_domain_errors(value: str) -> list[str]:
    """Names of webhooks: a subdomain of three segments or more."""
    if errors := dns_subdomain_errors(value):
        return errors
    if value.count(".") < 2:
        return ["should be a domain with at least three segments separated by dots"]
    return []


def domain_prefixed_path_errors(value: str) -> list[str]:
    """`example.com/some/path`, as signer names and ingress controllers are written."""
    domain, slash, path = value.partition("/")
    if not slash or not domain or not path:
        return ['must be a domain-prefixed path (such as "acme.io/foo")']
    errors = [f"prefix part {message}" for message in dns_subdomain_errors(domain)]
    if not _PATH_PREFIXED_RE.fullmatch(path):
        errors.append(regex_message("Invalid path", _PATH_PREFIXED))
    return errors


# No vowels and nothing that looks like another character: no words come out by accident.
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5


def random_suffix(random: Random, length: int = _SUFFIX_LENGTH) -> str:
    return "".join(random.choices(_SUFFIX_ALPHABET, k=length))


def generate_name(base: str, random: Random) -> str:
    """`base`, cut so that the whole stays a label, and five random characters."""
    return base[: MAX_LABEL - _SUFFIX_LENGTH] + random_suffix(random)


def safe_suffix(text: str) -> str:
    """Characters of a hash or number, moved into the alphabet of generated names."""
    size = len(_SUFFIX_ALPHABET)
    return "".join(_SUFFIX_ALPHABET[ord(character) % size] for character in text)
