"""Addresses of files that lie elsewhere: what is one, how folders and names become one, and how it is shown.

An address may hold a secret: `user:password@`, or a query that signs it. Nobody is shown either: every message, log and
list of ours names a file by `shown`, which is also what a video is called in results and indices.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

PACKAGES: dict[str, str | None] = {
    **{"http": None, "https": None, "memory": None, "hf": "huggingface_hub"},
    **{"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"},
}
"""Each kind of address, and the package that has to be installed for it, if any."""
FILE = "file://"
WEB = ("http", "https")
HARMLESS = frozenset(
    "v id version versionid revision rev generation download raw dl file path name format alt page".split()
)
"""Parameters of a query that are shown as they are."""
SIGNING = re.compile(
    r"x-(amz|goog|oss|ms|cos)-.*|awsaccesskeyid|googleaccessid|key-pair-id|signature|sig|expires?|policy|hash"
    r"|(access_|auth_|id_)?token|api_?key|key|auth|password|secret|se|sp|sv|sr|st|spr|sip|sk(oid|tid|t|e|s|v)",
    re.IGNORECASE,
)
"""Parameters that let somebody in and say nothing about which file it is."""
LONGEST_SHOWN = 64
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_address(text: str) -> bool:
    """Whether a path is the address of a file elsewhere; `file://` names one on this machine."""
    found = _SCHEME.match(text) if "://" in text else None
    return found is not None and found[1].lower() in PACKAGES


def scheme_of(address: str) -> str:
    """The kind of an address, such as `https`."""
    return address.partition("://")[0].lower()


def check_address(text: str) -> None:
    """ValueError for an address of a kind that is not known; anything else passes."""
    found = _SCHEME.match(text) if "://" in text else None
    if found is not None and found[1].lower() not in (*PACKAGES, "file"):
        known = ", ".join(f"{scheme}://" for scheme in (*PACKAGES, "file"))
        raise ValueError(f"{found[1]}:// is no kind of address that is read; known are {known}")


class _Parts(NamedTuple):
    """An address without who asks for it: `beginning` is scheme and host, `query` its parameters but signatures."""

    beginning: str
    path: str
    query: list[tuple[str, str]]


def _split(address: str) -> _Parts:
    scheme = scheme_of(address)
    if scheme not in WEB:
        # Names of objects may hold any character, and an `@` of the hub is a revision.
        host, slash, path = address.partition("://")[2].partition("/")
        host = host if scheme == "hf" else host.rpartition("@")[2]
        path, question, query = path.partition("?")
        if question and not re.match(r"[\w.-]+=", query):
            path, query = f"{path}?{query}", ""
        path = slash + path
    else:
        try:
            parts = urlsplit(address)
        except ValueError:
            return _Parts(f"{scheme}://", "", [])
        host, path, query = parts.netloc.rpartition("@")[2], parts.path, parts.query

    parameters = [(name, value) for name, value in parse_qsl(query, True) if not SIGNING.fullmatch(name)]
    return _Parts(f"{scheme}://{host}", path, parameters)


def shown(path: str) -> str:
    """An address without its secrets; any other path as it is.

    Parameters of a query that may be secret are replaced by a digest, so different files keep different names.
    """
    if not is_address(path):
        return path
    beginning, rest, query = _split(path)
    safe = [
        (name, value if name.lower() in HARMLESS and len(value) <= LONGEST_SHOWN else f"hidden-{_digest(value)[:8]}")
        for name, value in query
    ]
    return f"{beginning}{rest}" + (f"?{urlencode(safe)}" if safe else "")


def identity(address: str) -> str:
    """A digest of the file that an address means: another signature or user is the same file."""
    return _digest(repr(_split(address)))


def path_of(path: str) -> str:
    """The path in an address, without host and query, from which a suffix can be taken; other paths as they are."""
    return unquote(_split(path).path) if is_address(path) else path


def scrubbed(text: str, address: str) -> str:
    """A message of some library without the secrets of an address that it may repeat."""
    text = re.sub(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+", lambda found: shown(found[0]), text)
    for secret in _secrets(address):
        text = text.replace(secret, "***")
    return text


def _secrets(address: str) -> list[str]:
    user = address.partition("://")[2].partition("/")[0].rpartition("@")[0] if "hf://" not in address else ""
    kept = dict(_split(address).query)
    hidden = [value for name, value in parse_qsl(address.partition("?")[2], True) if name not in kept]
    found = [user.partition(":")[2], unquote(user.partition(":")[2]), *hidden, *map(quote, hidden)]
    return [secret for secret in found if len(secret) > 3]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class RemoteFolder:
    """A folder elsewhere, where a `Path` stands for one on this machine; `/` and `str` are as a path's."""

    address: str

    def __post_init__(self) -> None:
        assert is_address(self.address)
        object.__setattr__(self, "address", self.address.rstrip("/"))
        if self.address != shown(self.address):
            raise ValueError(
                f"{shown(self.address)}: a folder's address is written down beside results, so it may hold no user, "
                "password or signature; set them as docs/DATASETS.md says under Videos elsewhere"
            )

    def __truediv__(self, name: str) -> "RemoteFolder":
        return RemoteFolder(join(self.address, name))

    def __str__(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        """The last part of the address."""
        return unquote(self.address.rpartition("/")[2])

    @property
    def parent(self) -> "RemoteFolder":
        """The folder that it is in."""
        return RemoteFolder(self.address.rpartition("/")[0])

    def absolute(self) -> "RemoteFolder":
        """Itself: an address means the same wherever one is."""
        return self

    def resolve(self) -> "RemoteFolder":
        """Itself, for the same reason."""
        return self

    def is_dir(self) -> bool:
        """True: whether a folder is there is found out when it is read."""
        return True


Folder = Path | RemoteFolder
"""A folder on this machine or elsewhere."""


def folder_of(text: str) -> Folder:
    """The folder that a setting or an argument names."""
    check_address(text)
    if text.startswith(FILE):
        return Path(local_name(text))
    return RemoteFolder(text) if is_address(text) else Path(text)


def local_name(address: str) -> str:
    """The path that a `file://` address names; anything else as it is."""
    if not address.startswith(FILE):
        return address
    return unquote("/" + address.removeprefix(FILE).removeprefix("localhost").lstrip("/"))


def join(folder: str, name: str) -> str:
    """The path or address of a name in a folder; addresses and absolute paths stay as they are."""
    if "://" in name:
        if name.startswith(FILE):
            return local_name(name)
        if is_address(name):
            return name
    if not is_address(folder) or name.startswith("/"):
        return os.path.join(folder, name)
    # In a web address some characters of a file's name would mean something else.
    name = quote(name, safe="/!$&'()*+,;=:@~") if folder.startswith(WEB) else name
    return f"{folder.rstrip('/')}/{name.removeprefix('./')}"


def resolve(folder: Folder, name: str) -> str:
    """The absolute path, or the address, of a name in a folder."""
    if isinstance(folder, Path) and "://" not in name:
        return str((folder / name).absolute())
    return join(str(folder.absolute()), name)
