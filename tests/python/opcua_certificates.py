"""Certificates for OPC-UA, which wants RSA and the application's URI in them.

Writes into a folder, as PEM: an authority `ca` with its empty list of what it revoked, ca-crl.pem;
what it signed: `client`, also in client.der, and server-chain.pem, with the authority's behind it;
signed by themselves: `server`, `user` and `stranger`. The keys are in
NAME-key.pem.
"""

import argparse
import datetime
import ipaddress
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER


def name(common):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def new_key(bits):
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def revoked_nothing(authority):
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.certificate.subject)
    builder = builder.last_update(now - DAY).next_update(now + 30 * DAY)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(PEM)


class Pair:
    """A certificate and its key, signed by `issuer` or by itself."""

    def __init__(self, common, uri=None, issuer=None, key=None):
        self.key = key or new_key(2048)
        now = datetime.datetime.now(datetime.timezone.utc)
        signer = issuer or self
        authority = common == "ca"
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(common))
            .issuer_name(signer.certificate.subject if issuer else name(common))
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 30 * DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=True,
                    key_encipherment=True,
                    data_encipherment=True,
                    key_agreement=False,
                    key_cert_sign=authority or issuer is None,
                    crl_sign=authority,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        if uri:
            both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            names = [
                x509.UniformResourceIdentifier(uri),
                x509.DNSName("localhost"),
                x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            ]
            builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        self.certificate = builder.sign(signer.key, hashes.SHA256())

    def pem(self):
        return self.certificate.public_bytes(PEM)

    def write(self, folder, file):
        (folder / f"{file}.pem").write_bytes(self.pem())
        key = self.key.private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{file}-key.pem").write_bytes(key)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--server-uri", required=True)
    parser.add_argument("--client-uri", required=True)
    options = parser.parse_args()
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    authority = Pair("ca")
    authority.write(folder, "ca")
    (folder / "ca-crl.pem").write_bytes(revoked_nothing(authority))
    # Longer than the client's, where keys of different lengths meet in one message; the deprecated
    # policies take no longer one than 2048 bits, so the chain alone has it.
    signed = Pair("server", options.server_uri, authority, new_key(3072))
    signed.write(folder, "server-chain")
    (folder / "server-chain.pem").write_bytes(signed.pem() + authority.pem())
    Pair("server", options.server_uri).write(folder, "server")
    client = Pair("client", options.client_uri, authority)
    client.write(folder, "client")
    (folder / "client.der").write_bytes(client.certificate.public_bytes(DER))
    for user in ["user", "stranger"]:
        Pair(user).write(folder, user)


main()
