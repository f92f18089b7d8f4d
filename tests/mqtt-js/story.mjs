// What every client does with a broker, told by MQTT.js; ends with 0 if all of it works.
// `tests/python/story.py` tells the same. Usage:
//   story.mjs --modules FOLDER --name NAME --protocol 4|5 --transport tcp|tls|ws|wss|unix
//             [--port PORT] [--ca FILE] [--socket PATH]

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'

const WAIT_MS = 30_000

const texts = ['modules', 'name', 'protocol', 'transport', 'port', 'ca', 'socket']
const { values: options } = parseArgs({
  options: Object.fromEntries(texts.map((name) => [name, { type: 'string' }])),
})
// The modules are in the target folder, where an import would not look for them.
const mqtt = createRequire(resolve(options.modules, 'package.json'))('mqtt')
const version = Number(options.protocol)

setTimeout(() => {
  console.error('it hangs')
  process.exit(1)
}, 2 * WAIT_MS).unref()

function address() {
  const schemes = { tcp: 'mqtt', tls: 'mqtts', ws: 'ws', wss: 'wss' }
  const { transport, port } = options
  if (transport === 'unix') return { protocol: 'mqtt+unix', path: options.socket }
  const path = transport.startsWith('ws') ? '/mqtt' : undefined
  return { protocol: schemes[transport], host: 'localhost', port: Number(port), path }
}

/** One connection; what it gets is in `messages`. */
class Client {
  static async connect(name, { clean = true, will } = {}) {
    const self = new Client()
    self.messages = []
    self.client = mqtt.connect({
      ...address(),
      ca: options.ca ? readFileSync(options.ca) : undefined,
      protocolVersion: version,
      clientId: `${options.name}-${name}`,
      clean,
      will,
      properties: version === 5 ? { sessionExpiryInterval: clean ? 0 : 3600 } : undefined,
      reconnectPeriod: 0,
    })
    // Before the first await: a session's messages come right behind its CONNACK.
    self.client.on('message', (topic, payload, packet) => {
      self.messages.push([payload.toString(), packet.qos, packet.retain])
      self.client.emit('came')
    })
    const [connack] = await once(self.client, 'connect')
    self.present = connack.sessionPresent
    self.client.on('error', (error) => assert.fail(error))
    return self
  }

  async subscribe(topic, qos) {
    const granted = await this.client.subscribeAsync(topic, { qos })
    assert.deepEqual(granted.map((grant) => grant.qos), [qos])
  }

  publish(topic, payload, qos, retain = false) {
    return this.client.publishAsync(topic, payload, { qos, retain })
  }

  async expect(payload, qos, retain = false) {
    const signal = AbortSignal.timeout(WAIT_MS)
    while (this.messages.length === 0) await once(this.client, 'came', { signal })
    assert.deepEqual(this.messages.shift(), [payload, qos, retain])
  }

  leave() {
    return this.client.endAsync()
  }

  /** Without a DISCONNECT. */
  vanish() {
    this.client.stream.destroy()
  }
}

const root = options.name
const publisher = await Client.connect('publisher')
let lasting = await Client.connect('lasting', { clean: false })
assert(!lasting.present, 'a session that never was')
await lasting.subscribe(`${root}/+/state/#`, 2)
await publisher.publish(`${root}/a/other`, 'unwanted', 1)
for (const qos of [0, 1, 2]) {
  await publisher.publish(`${root}/a/state/deep`, `${qos}`, qos)
  await lasting.expect(`${qos}`, qos)
}

await publisher.publish(`${root}/kept`, 'kept', 1, true)
const late = await Client.connect('late')
await late.subscribe(`${root}/kept`, 1)
await late.expect('kept', 1, true)
await publisher.publish(`${root}/kept`, '', 1, true)
await late.expect('', 1)
const later = await Client.connect('later')
await later.subscribe(`${root}/kept`, 1)
await publisher.publish(`${root}/kept`, 'first', 1)
await later.expect('first', 1)

await later.subscribe(`${root}/will`, 1)
const will = { topic: `${root}/will`, payload: Buffer.from('gone'), qos: 1, retain: false }
const mortal = await Client.connect('mortal', { will })
mortal.vanish()
await later.expect('gone', 1)

await lasting.leave()
for (let number = 0; number < 10; number++) {
  await publisher.publish(`${root}/b/state`, `${number}`, number < 5 ? 1 : 2)
}
lasting = await Client.connect('lasting', { clean: false })
assert(lasting.present, 'the session is gone')
for (let number = 0; number < 10; number++) {
  await lasting.expect(`${number}`, number < 5 ? 1 : 2)
}
await Promise.all([publisher, lasting, late, later].map((client) => client.leave()))
