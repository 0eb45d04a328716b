"""TLS, which the service speaks if it has a certificate."""

import ssl


class UnusableCertificateError(Exception):
    """A certificate, its key or the clients' certificate authorities cannot be used."""


def encryption(cert: str, key: str, client_ca: str | None) -> ssl.SSLContext:
    """Return a server's TLS context: TLS 1.2 or later, and Python's default ciphers.

    Args:
        cert: A PEM file with the certificate and its chain up to the authority.
        key: A PEM file with its private key, without a passphrase.
        client_ca: A PEM file with authorities; a client without a certificate of one of them gets
            no connection. If None, clients are not asked for a certificate.

    Raises:
        UnusableCertificateError: One of the files cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a callback, OpenSSL would ask for a passphrase at the terminal.
        context.load_cert_chain(cert, key, password=_none)
    except (OSError, ValueError) as error:
        raise UnusableCertificateError(
            f"--tls-cert, --tls-key: {cert!r} and {key!r} cannot be used ({_reason(error)}). Give"
            " PEM files that the service's user can read: the certificate, with those in between"
            " behind it, and its private key, without a passphrase"
        ) from None
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except OSError as error:
            raise UnusableCertificateError(
                f"--tls-client-ca: {client_ca!r} cannot be used ({_reason(error)}). Give a PEM file"
                " with certificates of authorities"
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _none() -> str:
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or "no certificate in PEM form").lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error)
