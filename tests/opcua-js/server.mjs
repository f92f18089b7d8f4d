// An OPC-UA server that is not ours, on node-opcua: counters that go up by one at every tick.
// Writes what each counter was set to as a JSON line, as `tests/python/opcua_server.py` does, and
// ends when its standard input closes. SIGUSR2 closes every session and deletes its subscriptions.
// Usage:
//   server.mjs --modules FOLDER --pki FOLDER --port PORT --out FILE [OPTION...]
//
//   --counters 3  --first 0  --interval 0.1  --bad-every 0     as in opcua_server.py
//   --namespaces 0         as in opcua_server.py
//   --secure               all policies with both modes, beside None
//   --deprecated           Basic128Rsa15 and Basic256 too
//   --certificate FILE --private-key FILE     PEM, a chain at will; without, one is made
//   --trust-all            any client's certificate is fine; without, those of --trust FILE
//   --issuer FILE          an authority's certificate, or its list of revoked ones
//   --user NAME --password TEXT               the login that is taken beside anonymous
//   --user-certificate FILE                   the certificate that is taken as a user's
//   --no-anonymous
//   --history              HistoryRead of the counters, from memory
//   --types                State, Report and Temperature: an enumeration, a structure, and an
//                          analog item with range and unit, set at every tick
//   --commands             Setpoint can be written; the method Add on the object Machine
//   --alarm                a condition on Level, active above 100; Level can be written
//   --swings               Level does it by itself: 150 for twenty ticks, 0 for as many, …

import { appendFileSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const NAMESPACE = 'urn:skerry:tests'
const APPLICATION = 'urn:skerry:tests:node-opcua'
const HISTORY_VALUES_MAX = 100_000

const text = (fallback) => ({ type: 'string', default: fallback })
const flag = { type: 'boolean', default: false }
const { values: options } = parseArgs({
  options: {
    modules: text(),
    pki: text(),
    port: text(),
    out: text(),
    counters: text('3'),
    first: text('0'),
    interval: text('0.1'),
    'bad-every': text('0'),
    namespaces: text('0'),
    secure: flag,
    deprecated: flag,
    certificate: text(),
    'private-key': text(),
    'trust-all': flag,
    trust: { type: 'string', multiple: true, default: [] },
    issuer: { type: 'string', multiple: true, default: [] },
    user: text(),
    password: text(),
    'user-certificate': text(),
    'no-anonymous': flag,
    history: flag,
    types: flag,
    commands: flag,
    alarm: flag,
    swings: flag,
  },
})
// The modules are in the target folder, where an import would not look for them.
const require = createRequire(resolve(options.modules, 'package.json'))
const opcua = require('node-opcua')
const { DataType, DataValue, StatusCodes, Variant } = opcua
const { readCertificateChain, readCertificateRevocationList } = require('node-opcua-crypto')

/** Appends at once, so that a kill loses no line. */
function write(fields) {
  appendFileSync(options.out, `${JSON.stringify(fields)}\n`)
}

/** A store of its own for applications and for users, so that one is not taken for the other. */
async function certificates(name, trusted, trustAll) {
  const manager = new opcua.OPCUACertificateManager({
    rootFolder: resolve(options.pki, name),
    automaticallyAcceptUnknownCertificate: trustAll,
    disableFileWatchers: true,
  })
  await manager.initialize()
  for (const file of trusted) {
    for (const certificate of readCertificateChain(file)) {
      await manager.trustCertificate(certificate)
    }
  }
  for (const file of options.issuer) {
    if (readFileSync(file, 'utf8').includes('X509 CRL')) {
      await manager.addRevocationList(await readCertificateRevocationList(file))
    } else {
      await manager.addIssuer(readCertificateChain(file)[0])
    }
  }
  return manager
}

function security() {
  const { MessageSecurityMode: mode, SecurityPolicy: policy } = opcua
  const none = { securityModes: [mode.None], securityPolicies: [policy.None] }
  if (!options.secure && !options.deprecated) return none
  const policies = [policy.None]
  if (options.secure) {
    policies.push(policy.Basic256Sha256, policy.Aes128_Sha256_RsaOaep, policy.Aes256_Sha256_RsaPss)
  }
  if (options.deprecated) policies.push(policy.Basic128Rsa15, policy.Basic256)
  return {
    securityModes: [mode.None, mode.Sign, mode.SignAndEncrypt],
    securityPolicies: policies,
  }
}

const users = options['user-certificate'] ? [options['user-certificate']] : []
const server = new opcua.OPCUAServer({
  host: '127.0.0.1',
  hostname: '127.0.0.1',
  port: Number(options.port),
  resourcePath: '/tests',
  serverInfo: { applicationUri: APPLICATION, productUri: APPLICATION },
  ...security(),
  allowAnonymous: !options['no-anonymous'],
  userManager: {
    isValidUser: (name, password) =>
      options.user !== undefined && name === options.user && password === options.password,
  },
  serverCertificateManager: await certificates('server', options.trust, options['trust-all']),
  userCertificateManager: await certificates('users', users, false),
  ...(options.certificate && {
    certificateFile: options.certificate,
    privateKeyFile: options['private-key'],
  }),
  ...(options.types && {
    nodeset_filename: [opcua.nodesets.standard, fileURLToPath(new URL('machine.xml', import.meta.url))],
  }),
  maxConnectionsPerEndpoint: 100,
  serverCapabilities: { maxSessions: 100 },
  registerServerMethod: opcua.RegisterServerMethod.HIDDEN,
})
await server.initialize()

const space = server.engine.addressSpace
for (let number = 0; number < Number(options.namespaces); number += 1) {
  space.registerNamespace(`urn:skerry:other:${number}`)
}
const namespace = space.registerNamespace(NAMESPACE)
const objects = space.rootFolder.objects

const variable = (name, dataType, first, more = {}) => {
  const node = namespace.addVariable({
    organizedBy: objects,
    nodeId: `s=${name}`,
    browseName: name,
    dataType,
    accessLevel: 'CurrentRead',
    ...more,
  })
  node.setValueFromSource(first)
  return node
}

let value = Number(options.first)
const int64 = (number) => 
  new Variant({
    dataType: DataType.Int64,
    arrayType: opcua.VariantArrayType.Scalar,
    value: opcua.coerceInt64(number),
  })
const double = (number) => new Variant({ dataType: DataType.Double, value: number })

const counters = Array.from({ length: Number(options.counters) }, (_, number) => {
  const name = `Counter${number}`
  const accessLevel = options.history ? 'CurrentRead | HistoryRead' : 'CurrentRead'
  const node = variable(name, DataType.Int64, int64(value), { accessLevel })
  if (options.history) {
    space.installHistoricalDataNode(node, { maxOnlineValues: HISTORY_VALUES_MAX })
  }
  return { name, node }
})

/** Set at every tick, from the tick's number. */
const others = []

if (options.types) {
  const types = space.getNamespaceIndex('urn:skerry:tests:types')
  const state = variable('State', `ns=${types};s=MachineState`, new Variant({ dataType: DataType.Int32, value: 0 }))
  others.push((tick) => {
    state.setValueFromSource(new Variant({ dataType: DataType.Int32, value: tick % 3 }))
    write({ event: 'set', name: 'State', value: tick % 3, status: 0 })
  })

  const reportType = space.findDataType('MachineReport', types)
  const made = (tick) => ({
    temperature: 20 + (tick % 50) / 10,
    state: tick % 3,
    label: `tick ${tick}`,
    samples: [tick, tick + 1, tick + 2],
  })
  const wrapped = (fields) =>
    new Variant({
      dataType: DataType.ExtensionObject,
      value: space.constructExtensionObject(reportType, fields),
    })
  const report = variable('Report', reportType.nodeId, wrapped(made(0)))
  others.push((tick) => {
    report.setValueFromSource(wrapped(made(tick)))
    write({ event: 'set', name: 'Report', value: made(tick), status: 0 })
  })

  const temperature = namespace.addAnalogDataItem({
    organizedBy: objects,
    nodeId: 's=Temperature',
    browseName: 'Temperature',
    dataType: DataType.Double,
    engineeringUnitsRange: { low: -20, high: 120 },
    engineeringUnits: opcua.standardUnits.degree_celsius,
    accessLevel: 'CurrentRead',
  })
  temperature.setValueFromSource(double(20))
  others.push((tick) => {
    const celsius = 20 + (tick % 50) / 10
    temperature.setValueFromSource(double(celsius))
    write({ event: 'set', name: 'Temperature', value: celsius, status: 0 })
  })
}

/** A Double that clients set; what they set is a line. */
function writable(name, first) {
  const node = variable(name, DataType.Double, double(first), { accessLevel: 'CurrentRead | CurrentWrite' })
  node.on('value_changed', (data) => {
    write({ event: 'written', name, value: data.value.value, status: data.statusCode.value })
  })
  return node
}

if (options.commands) {
  writable('Setpoint', 0)
  const machine = namespace.addObject({
    organizedBy: objects,
    nodeId: 's=Machine',
    browseName: 'Machine',
  })
  const argument = (name) => ({ name, dataType: DataType.Int32 })
  const add = namespace.addMethod(machine, {
    nodeId: 's=Machine.Add',
    browseName: 'Add',
    inputArguments: [argument('one'), argument('other')],
    outputArguments: [argument('sum')],
  })
  add.bindMethod((inputs, _context, done) => {
    const [one, other] = inputs.map((input) => input.value)
    write({ event: 'called', name: 'Machine.Add', value: [one, other] })
    done(null, {
      statusCode: StatusCodes.Good,
      outputArguments: [{ dataType: DataType.Int32, value: one + other }],
    })
  })
}

if (options.alarm) {
  space.installAlarmsAndConditionsService()
  const source = namespace.addObject({
    organizedBy: objects,
    nodeId: 's=Tank',
    browseName: 'Tank',
    eventSourceOf: space.rootFolder.objects.server,
    eventNotifier: 1,
  })
  const level = writable('Level', 0)
  const alarm = namespace.instantiateExclusiveLimitAlarm('ExclusiveLimitAlarmType', {
    componentOf: source,
    nodeId: 's=LevelAlarm',
    browseName: 'LevelAlarm',
    conditionName: 'LevelAlarm',
    conditionSource: source,
    inputNode: level,
    highHighLimit: 200,
    highLimit: 100,
    lowLimit: -100,
    lowLowLimit: -200,
    optionals: ['Acknowledge', 'ConfirmedState', 'Confirm'],
  })
  if (options.swings) {
    others.push((tick) => {
      if (tick % 20 !== 0) return
      const swung = tick % 40 === 0 ? 0 : 150
      level.setValueFromSource(double(swung))
      write({ event: 'set', name: 'Level', value: swung, status: 0 })
    })
  }
  for (const event of ['acknowledged', 'confirmed']) {
    alarm.on(event, (eventId, comment) => {
      const id = eventId?.toString('base64')
      write({ event, name: 'LevelAlarm', id, comment: comment?.text })
    })
  }
}

await server.start()
write({ event: 'serving', namespace: namespace.index })

const every = Number(options['bad-every'])
const ticks = setInterval(() => {
  value += 1
  const bad = every > 0 && value % every === 0
  const statusCode = bad ? StatusCodes.BadSensorFailure : StatusCodes.Good
  const now = new Date()
  for (const { name, node } of counters) {
    node.setValueFromSource(int64(value), statusCode, now)
    write({ event: 'set', name, value, status: statusCode.value, time: now.getTime() * 1e6 })
  }
  for (const set of others) set(value)
}, Number(options.interval) * 1000)

process.on('SIGUSR2', () => {
  for (const { authenticationToken } of server.engine.getSessions()) {
    server.engine.closeSession(authenticationToken, true, 'Terminated')
  }
  write({ event: 'sessions closed' })
})

process.stdin.on('end', async () => {
  clearInterval(ticks)
  await server.shutdown(0)
  process.exit(0)
})
process.stdin.resume()
