// A bare OPC-UA client on node-opcua, to measure others against: it monitors the counters of
// tests/opcua-c/server.c and counts what comes. Options and lines are those of
// tests/opcua-c/client.c, but for the times; --modules is where node-opcua is.

import { appendFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'

const NAMESPACE = 'urn:skerry:tests'
const ITEMS_AT_ONCE = 500
const QUEUE_VALUES = 10_000
const REPORT_EVERY_MS = 200
const OVERFLOW_BITS = 0x0480

const text = { type: 'string' }
const { values: options } = parseArgs({
  options: { modules: text, pki: text, port: text, counters: text, out: text, publishing: text },
})
// The modules are in the target folder, where an import would not look for them.
const require = createRequire(resolve(options.modules, 'package.json'))
const opcua = require('node-opcua')

function write(fields) {
  appendFileSync(options.out, `${JSON.stringify(fields)}\n`)
}

const client = opcua.OPCUAClient.create({
  endpointMustExist: false,
  clientCertificateManager: new opcua.OPCUACertificateManager({
    rootFolder: resolve(options.pki),
    disableFileWatchers: true,
  }),
  transportSettings: { maxMessageSize: 64 * 1024 * 1024, maxChunkCount: 8192 },
})
await client.connect(`opc.tcp://127.0.0.1:${options.port}`)
const session = await client.createSession()
const namespace = (await session.readNamespaceArray()).indexOf(NAMESPACE)
const subscription = await session.createSubscription2({
  requestedPublishingInterval: Number(options.publishing ?? '0.1') * 1000,
  requestedLifetimeCount: 1000,
  requestedMaxKeepAliveCount: 30,
  maxNotificationsPerPublish: 5000,
  publishingEnabled: true,
})

let values = 0
let overflows = 0
const counters = Number(options.counters)
for (let from = 0; from < counters; from += ITEMS_AT_ONCE) {
  const count = Math.min(ITEMS_AT_ONCE, counters - from)
  const items = Array.from({ length: count }, (_, n) => ({
    nodeId: `ns=${namespace};s=Counter${from + n}`,
    attributeId: opcua.AttributeIds.Value,
  }))
  // Zero: whatever is written is a sample.
  const parameters = { samplingInterval: 0, queueSize: QUEUE_VALUES, discardOldest: true }
  const group = await subscription.monitorItems(items, parameters, opcua.TimestampsToReturn.Both)
  group.on('changed', (_item, data) => {
    values += 1
    if ((data.statusCode.value & OVERFLOW_BITS) === OVERFLOW_BITS) overflows += 1
  })
}
write({ event: 'monitoring', counters })
const reports = setInterval(() => write({ event: 'received', values, overflows }), REPORT_EVERY_MS)

process.stdin.on('end', async () => {
  clearInterval(reports)
  await client.disconnect()
  process.exit(0)
})
process.stdin.resume()
