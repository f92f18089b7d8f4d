"""An OPC-UA server that is not ours: counters that go up by one at every tick.

Writes what each counter was set to as a JSON line, with its source time in nanoseconds since the
Unix epoch. Every `--bad-every`-th value carries BadSensorFailure instead of Good. `--namespaces`
puts that many namespaces before the counters' own. SIGUSR2 deletes every subscription. `--types`
adds State, Report and Temperature, `--events` an event at every tick, `--clock` a clock that can be
set (opcua_clock.py).
The options for security are those of opcua-js/server.mjs.
"""

import argparse
import asyncio
import datetime
import logging
import signal

from asyncua import Server, ua
from asyncua.common.callback import CallbackType
from asyncua.common.utils import ServiceError
from asyncua.crypto import uacrypto
from asyncua.crypto.permission_rules import User, UserRole
from cryptography import x509

from lines import Lines, asked_to_stop
from opcua_clock import Clock
from opcua_machine import Events, Machine

NAMESPACE = "urn:skerry:tests"
APPLICATION = "urn:skerry:tests:asyncua"
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


async def delete_subscriptions(server, out):
    service = server.iserver.subscription_service
    await service.delete_subscriptions(list(service.subscriptions))
    out.write(event="subscriptions deleted")


def of_an_application(certificate):
    """For an anonymous user, asyncua hands over the certificate of the client itself."""
    try:
        extensions = x509.load_der_x509_certificate(certificate).extensions
        extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return False
    return True


class Users:
    """Anonymous unless forbidden, one name with its password, one certificate."""

    def __init__(self, options, certificate):
        self._options = options
        self._certificate = certificate

    def get_user(self, iserver, username=None, password=None, certificate=None):
        if username is not None:
            known = (self._options.user, self._options.password)
            welcome = (username, password) == known
        elif certificate and not of_an_application(certificate):
            welcome = certificate == self._certificate
        else:
            welcome = not self._options.no_anonymous
        return User(role=UserRole.User, name=username) if welcome else None


async def secure(server, options):
    """All policies it has, and whom it lets in."""
    kinds = [ua.SecurityPolicyType.NoSecurity]
    modern = ["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"]
    for policy in modern + (["Basic128Rsa15", "Basic256"] if options.deprecated else []):
        kinds += [ua.SecurityPolicyType[f"{policy}_{m}"] for m in ("Sign", "SignAndEncrypt")]
    server.set_security_policy(kinds)
    await server.load_certificate(options.certificate)
    await server.load_private_key(options.private_key)
    await server.set_application_uri(APPLICATION)
    tokens = [ua.UserNameIdentityToken, ua.X509IdentityToken]
    server.set_identity_tokens(([] if options.no_anonymous else [ua.AnonymousIdentityToken]) + tokens)
    if not options.trust_all:
        trusted = [await uacrypto.load_certificate(file) for file in options.trust]

        async def validate(certificate, _application):
            if certificate not in trusted:
                raise ServiceError(ua.StatusCodes.BadCertificateUntrusted)

        server.set_certificate_validator(validate)


async def users(options):
    certificate = None
    if options.user_certificate:
        loaded = await uacrypto.load_certificate(options.user_certificate)
        certificate = uacrypto.der_from_x509(loaded)
    return Users(options, certificate)


async def add_commands(server, index, out):
    """What clients may do: write to `Setpoint`, a Float, and call `Start`, which takes an Int16."""
    objects = server.nodes.objects
    first = ua.Variant(20.0, ua.VariantType.Float)
    setpoint = await objects.add_variable(ua.NodeId("Setpoint", index), "Setpoint", first)
    await setpoint.set_writable()

    def written(event, _dispatcher):
        if event.is_external:
            writes = zip(event.request_params.NodesToWrite, event.response_params)
            for write, status in writes:
                name, value = write.NodeId.Identifier, write.Value.Value.Value
                out.write(event="written", name=name, value=value, status=status.value)

    server.subscribe_server_callback(CallbackType.PostWrite, written)

    async def start(_parent, level):
        out.write(event="called", level=level.Value)
        return [ua.Variant(2 * level.Value, ua.VariantType.Int32)]

    inputs, outputs = [ua.VariantType.Int16], [ua.VariantType.Int32]
    await objects.add_method(ua.NodeId("Start", index), "Start", start, inputs, outputs)


async def serve(options):
    out = Lines(options.out)
    stop = asked_to_stop()
    server = Server(user_manager=await users(options))
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{options.port}/tests")
    if options.secure:
        await secure(server, options)
    else:
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    for number in range(options.namespaces):
        await server.register_namespace(f"urn:skerry:other:{number}")
    index = await server.register_namespace(NAMESPACE)
    nodes = []
    for number in range(options.counters):
        name = f"Counter{number}"
        node = await server.nodes.objects.add_variable(
            ua.NodeId(name, index), name, ua.Variant(options.first, ua.VariantType.Int64)
        )
        nodes.append((name, node))
    if options.commands:
        await add_commands(server, index, out)
    others = []
    if options.types:
        others.append(Machine())
        await others[-1].add(server, index)
    if options.events:
        others.append(Events())
        await others[-1].add(server)
    if options.clock:
        Clock(server, out)
    value = options.first
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGUSR2, lambda: asyncio.ensure_future(delete_subscriptions(server, out))
    )
    async with server:
        out.write(event="serving", namespace=index)
        while not stop.is_set():
            await asyncio.sleep(options.interval)
            value += 1
            bad = options.bad_every and value % options.bad_every == 0
            status = ua.StatusCodes.BadSensorFailure if bad else ua.StatusCodes.Good
            now = datetime.datetime.now(datetime.timezone.utc)
            time = (now - EPOCH) // datetime.timedelta(microseconds=1) * 1000
            for name, node in nodes:
                data = ua.DataValue(
                    ua.Variant(value, ua.VariantType.Int64),
                    StatusCode=ua.StatusCode(status),
                    SourceTimestamp=now,
                    ServerTimestamp=now,
                )
                await node.write_value(data)
                out.write(event="set", name=name, value=value, status=status, time=time)
            for other in others:
                await other.tick(value, out)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--counters", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="where the counters go on")
    parser.add_argument("--interval", type=float, default=0.1, help="seconds between ticks")
    parser.add_argument("--namespaces", type=int, default=0)
    parser.add_argument("--bad-every", type=int, default=0)
    parser.add_argument("--secure", action="store_true", help="all policies, both modes")
    parser.add_argument("--deprecated", action="store_true", help="Basic128Rsa15 and Basic256 too")
    parser.add_argument("--certificate", help="PEM, the server's own; needed with --secure")
    parser.add_argument("--private-key")
    parser.add_argument("--trust-all", action="store_true", help="any client's certificate is fine")
    parser.add_argument("--trust", action="append", default=[], help="a client's certificate")
    parser.add_argument("--user", help="the login that is taken beside anonymous")
    parser.add_argument("--password")
    parser.add_argument("--user-certificate", help="the certificate that is taken as a user's")
    parser.add_argument("--no-anonymous", action="store_true")
    parser.add_argument("--commands", action="store_true", help="let clients write and call")
    parser.add_argument("--types", action="store_true")
    parser.add_argument("--events", action="store_true")
    parser.add_argument("--clock", action="store_true", help="one that can be set and stopped")
    parser.add_argument("--out", required=True)
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(serve(parser.parse_args()))


main()
