"""A crypt(3) hash for a password. The clear text leaves this file only as a hash.

Source: spec/provisioning.md §5.3 with its Rule, traps 15, 16. libpass (25 MiB with its parts) is
loaded only here.
"""

from __future__ import annotations

import secrets
import string

from waagent.protocol.base.secret import Secret
from waagent.workers.provisioner.provisioning_error import ProvisioningError

_SALT_LETTERS = string.ascii_letters + string.digits
_SALT_LIMIT = {"1": 8, "5": 16, "6": 16}
_BCRYPT_LETTERS = "./" + string.ascii_uppercase + string.ascii_lowercase + string.digits
_DEFAULT_SALT = 10
_ROUNDS = 5000  # what every crypt(3) takes without being told


class CannotHash(ProvisioningError):
    """This machine cannot make that kind of hash."""


def hash_password(password: Secret, crypt_id: str, salt_length: int) -> str:
    """The hash for /etc/shadow. Raises CannotHash when ``crypt_id`` is not to be had here."""
    hashed = (
        _by_libpass(password, crypt_id, salt_length)
        if crypt_id in _SALT_LIMIT
        else _by_libcrypt(password, crypt_id)
    )
    if not hashed.startswith("$") or ":" in hashed or "\n" in hashed:
        raise CannotHash(
            f"crypt gave no hash for id {crypt_id[:8]!r}", "Provisioning.PasswordCryptId", "use 6"
        )
    return hashed


def salt_for(crypt_id: str, length: int) -> str:
    """Random letters, as many as asked for and as the scheme can take; a useless number gives
    10.
    """
    limit = _SALT_LIMIT[crypt_id]
    wanted = length if 0 < length <= limit else min(limit, _DEFAULT_SALT)
    return "".join(secrets.choice(_SALT_LETTERS) for _ in range(wanted))


def _by_libpass(password: Secret, crypt_id: str, salt_length: int) -> str:
    from passlib import hash as schemes

    salt = salt_for(crypt_id, salt_length)
    text = password.reveal()
    if crypt_id == "1":
        return str(schemes.md5_crypt.using(salt=salt).hash(text))
    scheme = schemes.sha256_crypt if crypt_id == "5" else schemes.sha512_crypt
    return str(scheme.using(salt=salt, rounds=_ROUNDS).hash(text))


def _by_libcrypt(password: Secret, crypt_id: str) -> str:
    """By the system's own crypt: bcrypt needs a cost and 22 letters of its own alphabet."""
    if crypt_id not in ("2a", "2b", "2y"):
        raise CannotHash(
            f"crypt id {crypt_id[:8]!r} is not known", "Provisioning.PasswordCryptId", "use 6"
        )
    import ctypes
    import ctypes.util

    name = ctypes.util.find_library("crypt")
    if name is None:
        raise CannotHash(
            "there is no libcrypt", f"Provisioning.PasswordCryptId={crypt_id}", "use 6"
        )
    library = ctypes.CDLL(name)
    library.crypt.restype = ctypes.c_char_p
    library.crypt.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
    letters = "".join(secrets.choice(_BCRYPT_LETTERS) for _ in range(21))
    setting = f"${crypt_id}$10${letters}{secrets.choice('.Oeu')}"  # the last letter holds two bits
    hashed = library.crypt(password.reveal().encode("utf-8"), setting.encode("ascii"))
    return hashed.decode("ascii", "replace") if hashed else ""
