/** The built-in transports keep the one contract. */
import { test } from 'node:test';
import { createTcpTransport } from 'drakkar';
import { transportCompliance } from 'drakkar/compliance';
import { MemoryHub } from 'drakkar/testing';
import { transportCases } from '../../src/compliance/transport.ts';
import { SecuredPair } from './secured.ts';

const suites = {
  tcp: transportCompliance(createTcpTransport),
  memory: transportCompliance(new MemoryHub().createTransport),
  'tcp with certificates': transportCases(() => new SecuredPair()),
};

for (const [transport, cases] of Object.entries(suites)) {
  for (const { name, run } of cases) test(`${transport}: ${name}`, run);
}
