"""The keys that follow from the secrets of an app: they sign and check, encrypt and decrypt bytes.

Pure functions of bytes, on any thread. Knows nothing of jobs: `seal` says what is signed.

Each secret gives a **root key**. From it follows one key for each purpose and namespace: to sign, and to
encrypt. So bytes that were made for one purpose, or for one namespace, are of no use for another.

- To sign is keyed BLAKE2b with 16 bytes (RFC 7693, which makes a MAC of it by itself).
- To encrypt is AES-256-GCM from `cryptography`. The key of the purpose never encrypts anything. It makes,
  with 12 random bytes, a key for this one message; 12 more random bytes are the vector of GCM. With 24
  random bytes no pair of key and vector comes twice, however many messages there are: the 12 bytes that GCM
  takes by itself would allow only some 4 billion under one key. The random bytes come from the kernel for
  each message, and no counter and no generator is kept here. So a child after `fork` cannot repeat what its
  parent has used.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, Final

from asyncq.errors import BrokerNotConfigured

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAC_BYTES: Final = 16
"""The length of a signature."""
_SALT, _VECTOR = 12, 12
RANDOM_BYTES: Final = _SALT + _VECTOR
"""The random bytes in front of what is encrypted."""
TAG_BYTES: Final = 16
"""The bytes by which AES-GCM makes a text longer."""


class Keyring:
    """The keys of an app for one namespace. The first secret signs and encrypts; all are accepted.

    Args:
        secrets: the secrets, at least one.
        namespace: the namespace.
        encrypts: whether to encrypt; then the library `cryptography` is imported at once.

    Attributes:
        names: a name for each secret, in the order of the secrets. It shows nothing of the secret but
            whether two processes have the same.

    Raises:
        BrokerNotConfigured: `cryptography` is not installed, and `encrypts` is true.
    """

    def __init__(self, secrets: Sequence[str], namespace: str, *, encrypts: bool) -> None:
        self._roots = [
            blake2b(secret.encode(), digest_size=64, person=b"asyncq root 1").digest() for secret in secrets
        ]
        self._namespace = namespace.encode()
        self.names: list[str] = [self._key(root, b"name", b"")[:4].hex() for root in self._roots]
        self._encryption_keys: dict[bytes, list[bytes]] = {}
        self._cipher: Callable[[bytes], Any] | None = _cipher() if encrypts else None

    def __repr__(self) -> str:
        return f"<Keyring {' '.join(self.names)}>"  # the names only: this may come into a log

    def __reduce__(self) -> str:
        raise TypeError("a Keyring holds keys and is not pickled: make one of the settings")

    def _key(self, root: bytes, use: bytes, purpose: bytes) -> bytes:
        # Neither a purpose nor a namespace has a space, so no two of them give the same text.
        return blake2b(
            b"%b %b" % (purpose, self._namespace), key=root, digest_size=64, person=b"asyncq " + use
        ).digest()

    def signers(self, purpose: bytes) -> list[Any]:
        """Returns a hash for each secret, which holds the key of the purpose already. A copy of it that is
        given more bytes signs them: to copy costs less than to begin with the key.
        """
        return [blake2b(key=self._key(root, b"sign", purpose), digest_size=MAC_BYTES) for root in self._roots]

    def encrypt(self, purpose: bytes, head: bytes, data: bytes) -> bytes:
        """Encrypts bytes.

        Args:
            purpose: of the bytes.
            head: must be the same when they are decrypted. It is not part of the result.
            data: the bytes.
        """
        assert self._cipher is not None, "only an app with encrypt=True encrypts"
        random = os.urandom(RANDOM_BYTES)
        cipher = self._cipher(_message_key(self._keys(purpose)[0], random))
        text: bytes = cipher.encrypt(random[_SALT:], data, head)
        return random + text

    def decrypt(self, purpose: bytes, head: bytes, text: bytes) -> bytes | None:
        """Decrypts what `encrypt` returned, with any of the secrets. Returns None if none of them fits, or if
        anything has changed. An app without `encrypt` decrypts, too.

        Raises:
            BrokerNotConfigured: `cryptography` is not installed.
        """
        if self._cipher is None:
            self._cipher = _cipher()
        random, rest = text[:RANDOM_BYTES], text[RANDOM_BYTES:]
        if len(rest) < TAG_BYTES:
            return None
        for key in self._keys(purpose):
            try:
                data: bytes = self._cipher(_message_key(key, random)).decrypt(random[_SALT:], rest, head)
            except _invalid():
                continue
            return data
        return None

    def _keys(self, purpose: bytes) -> list[bytes]:
        """Returns the keys of a purpose to encrypt, one for each secret."""
        keys = self._encryption_keys.get(purpose)
        if keys is None:
            keys = [self._key(root, b"encrypt", purpose) for root in self._roots]
            self._encryption_keys[purpose] = keys
        return keys


def check(signers: Sequence[Any], mac: bytes, *parts: bytes) -> bool:
    """Returns whether one of the signers makes this signature of these parts."""
    for signer in signers:
        one = signer.copy()
        for part in parts:
            one.update(part)
        if compare_digest(one.digest(), mac):
            return True
    return False


def _message_key(key: bytes, random: bytes) -> bytes:
    """Returns the key for one message."""
    return blake2b(random[:_SALT], key=key, digest_size=32).digest()


def _cipher() -> Callable[[bytes], Any]:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ModuleNotFoundError as error:
        raise BrokerNotConfigured(
            "messages are encrypted (encrypt=True, here or where they come from), and the library "
            "cryptography is not installed: pip install 'asyncq[crypto]'"
        ) from error
    return AESGCM


def _invalid() -> type[Exception]:
    from cryptography.exceptions import InvalidTag

    return InvalidTag
