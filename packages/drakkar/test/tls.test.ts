/** Hosts with certificates: what is refused at the start, and new certificates while writes go on. */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { NodeHost, type Logger, type TlsOptions } from 'drakkar';
import { silentLogger } from '../src/env/env.ts';
import { hostUri, roleOf } from '../src/transport/identity.ts';
import { Authority, type Request } from './certificates.ts';
import { Journal, text } from './support.ts';

const root = mkdtempSync(join(tmpdir(), 'drakkar-tls-'));
after(() => rmSync(root, { recursive: true, force: true }));

const ADDRESS = '127.0.0.1:23021';
const HONEST: Request = { ip: ['127.0.0.1'], uri: [roleOf(1)] };
let authority: Authority;
let other: Authority;
before(async () => {
  authority = await Authority.make('authority');
  other = await Authority.make('other');
});

let directories = 0;
const open = (tls: unknown, more: object = {}): Promise<NodeHost> =>
  NodeHost.open({ dir: `${root}/host-${++directories}`, raftAddress: ADDRESS, tls: tls as TlsOptions, ...more });

const mistakes: [what: string, tls: () => Promise<Partial<TlsOptions>>, message: RegExp][] = [
  ['a key of another certificate', async () => ({ key: (await authority.issue(HONEST)).key }), /key does not belong/],
  ['an expired certificate', () => authority.issue({ ...HONEST, validToMs: -1000 }), /expired at \d{4}-/],
  ['a certificate of tomorrow', () => authority.issue({ ...HONEST, validFromMs: 3_600_000 }), /valid only from/],
  ['a file that is missing', async () => ({ cert: `${root}/no.pem` }), /tls\.cert is .*no\.pem.* no such file/],
  ['a file that is a directory', async () => ({ ca: root }), /tls\.ca is /],
  [
    'another host',
    () => authority.issue({ ...HONEST, ip: ['10.0.0.1'] }),
    /does not name the host of 127\.0\.0\.1:23021/,
  ],
  ['no role', () => authority.issue({ ip: ['127.0.0.1'] }), /none of the roles.*drakkar:\/\/raft\/1/],
  ['another role', async () => ({ roles: ['my://role'] }), /none of the roles.*my:\/\/role/],
  [
    'another host id',
    () => authority.issue({ ...HONEST, uri: [roleOf(1), hostUri('1'.repeat(32))] }),
    /does not name drakkar:\/\/host\/[0-9a-f]{32}/,
  ],
  ['another authority', async () => ({ ca: other.ca }), /signed by none of the authorities/],
  ['the authority itself', () => authority.issue({ ...HONEST, isAuthority: true }), /one of an authority/],
  ['half a usage', () => authority.issue({ ...HONEST, usages: ['server'] }), /leaves out TLS client/],
  ['no PEM', async () => ({ cert: '-----BEGIN nothing' }), /cert holds no certificate/],
  [
    'a broken key',
    async () => ({ key: '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n' }),
    /no private key/,
  ],
  ['a broken list', async () => ({ crl: '-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n' }), /go together/],
];

for (const [what, tls, message] of mistakes) {
  test(`${what} is refused at the start, and the message says so`, async () => {
    const options = { ca: authority.ca, ...(await authority.issue(HONEST)), ...(await tls()) };
    await assert.rejects(open(options), { code: 'ERR_TLS_CONFIG', message, retryable: false });
    // Nothing is left behind that a second try would trip over.
    const host = await NodeHost.open({ dir: `${root}/host-${directories}`, raftAddress: ADDRESS });
    await host.close();
  });
}

const options: [what: string, tls: unknown, message: RegExp][] = [
  ['no object', 'yes', /tls is "yes"/],
  ['no key', { ca: 'a', cert: 'b' }, /tls: key is/],
  ['an unknown name', { ca: 'a', cert: 'b', key: 'c', passphrase: 'd' }, /there is no option passphrase/],
  ['a role that is no URI', { ca: 'a', cert: 'b', key: 'c', roles: ['raft'] }, /roles is \["raft"\]/],
];

for (const [what, tls, message] of options) {
  test(`tls with ${what} is refused`, () => assert.rejects(open(tls), { code: 'ERR_INVALID_OPTION', message }));
}

test('a key is never shown, not even in the message that it is of the wrong kind', async () => {
  const error = await open({ ca: 'a', cert: 'b', key: ['secret'] }).catch((why: Error) => why);
  assert.match((error as Error).message, /key is/);
  assert.doesNotMatch((error as Error).message, /secret/);
});

test('a key that everybody may read is told of; a plain host that others can reach, too', async () => {
  const warnings: string[] = [];
  const logger: Logger = { ...silentLogger, warn: (_fields, message) => void warnings.push(message) };
  const { cert, key } = await authority.issue(HONEST);
  writeFileSync(`${root}/key.pem`, key, { mode: 0o600 });
  const first = await open({ ca: authority.ca, cert, key: `${root}/key.pem` }, { logger });
  await first.close();
  assert.deepEqual(warnings, []);
  chmodSync(`${root}/key.pem`, 0o644);
  await (await open({ ca: authority.ca, cert, key: `${root}/key.pem` }, { logger })).close();
  assert.match(warnings[0], /chmod 600/);
  await (await open(undefined, { logger })).close();
  assert.equal(warnings.length, 1);
  await (await open(undefined, { logger, listenAddress: '0.0.0.0:23021' })).close();
  assert.match(warnings[1], /anybody who reaches this address/);
});

test('reloadTls: refused without tls, and what does not hold changes nothing', async () => {
  const plain = await open(undefined);
  await assert.rejects(plain.reloadTls(), { code: 'ERR_INVALID_OPTION', message: /without tls/ });
  await plain.close();
  await assert.rejects(plain.reloadTls(), { code: 'ERR_CLOSED' });
  const host = await open({ ca: authority.ca, ...(await authority.issue(HONEST)) });
  await assert.rejects(host.reloadTls(await authority.issue({ ...HONEST, ip: ['10.0.0.1'] })), {
    code: 'ERR_TLS_CONFIG',
  });
  await assert.rejects(host.reloadTls({ roles: ['x://y'] } as object), { code: 'ERR_INVALID_OPTION' });
  await host.reloadTls(await authority.issue(HONEST));
  await host.close();
});

test('new authority, new certificates, old authority gone: no write fails or is lost meanwhile, and every connection is replaced', async () => {
  const members = { 1: '127.0.0.1:23011', 2: '127.0.0.1:23012', 3: '127.0.0.1:23013' };
  const file = (id: number, name: string): string => `${root}/${id}-${name}.pem`;
  const write = (id: number, name: string, pem: string): void => {
    writeFileSync(`${file(id, name)}.new`, pem, { mode: 0o600 });
    renameSync(`${file(id, name)}.new`, file(id, name));
  };
  const ids = [1, 2, 3];
  for (const id of ids) {
    const { cert, key } = await authority.issue(HONEST);
    for (const [name, pem] of Object.entries({ ca: authority.ca, cert, key })) write(id, name, pem);
  }
  const hosts = await Promise.all(
    ids.map(async (id) => {
      const host = await NodeHost.open({
        dir: `${root}/rotated-${id}`,
        raftAddress: members[id as 1],
        rttMs: 10,
        tls: {
          ca: file(id, 'ca'),
          cert: file(id, 'cert'),
          key: file(id, 'key'),
          reloadIntervalMs: 0,
          connectionMaxAgeMs: 60_000,
        },
      });
      // Busy machines stall for a while; that is not what is tested here.
      await host.startReplica({ shardId: 1, replicaId: id, members, electionRtt: 500 }, () => new Journal());
      return host;
    }),
  );
  await Promise.all(hosts.map((host) => host.whenReady(1, { timeoutMs: 30_000 })));
  const acknowledged: string[] = [];
  let isOver = false;
  const writers = hosts.map(async (host, at) => {
    for (let n = 0; !isOver; n++) {
      const line = `${at}-${n}`;
      await host.propose(1, text(line), { timeoutMs: 30_000 });
      acknowledged.push(line);
    }
  });
  const failed = Promise.race(writers); // none ends by itself but with an error
  failed.catch(() => {});
  const wrote = async (): Promise<void> => {
    const count = acknowledged.length + 100;
    while (acknowledged.length < count) await Promise.race([failed, new Promise((resolve) => setTimeout(resolve, 5))]);
  };
  const sum = (name: string): number =>
    hosts.reduce(
      (all, host) => all + Number(new RegExp(`^drakkar_transport_${name}_total (\\d+)$`, 'm').exec(host.metrics())![1]),
      0,
    );
  const connections = (): number[] =>
    hosts.map((host) => Number(/^drakkar_transport_connections_up_total (\d+)$/m.exec(host.metrics())![1]));
  const replaced = async (): Promise<void> => {
    const before = connections();
    await wrote();
    // Two peers each: both connections of every host are new ones.
    while (connections().some((count, at) => count < before[at] + 2)) await wrote();
  };
  await wrote();
  const dropped = sum('frames_dropped');
  const failures = sum('connections_failed');
  const steps = [
    async (id: number) => write(id, 'ca', authority.ca + other.ca),
    async (id: number) => {
      const { cert, key } = await other.issue(HONEST);
      write(id, 'cert', cert);
      write(id, 'key', key);
    },
    async (id: number) => write(id, 'ca', other.ca),
  ];
  for (const step of steps) {
    for (const id of ids) await step(id);
    const isReplaced = replaced();
    for (const host of hosts) await host.reloadTls();
    await isReplaced;
  }
  assert.equal(sum('frames_dropped'), dropped, 'a peer was away for a moment');
  assert.equal(sum('connections_failed'), failures, 'a renewal failed');
  isOver = true;
  await Promise.all(writers);
  const lines = new Set((await hosts[0].read(1, 'all')) as string[]);
  for (const line of acknowledged) assert.ok(lines.has(line), `${line} was acknowledged and is lost`);
  for (const host of hosts)
    assert.doesNotMatch(host.metrics(), /transport_refused_total\{/, 'a connection was refused');
  await Promise.all(hosts.map((host) => host.close()));
});

test('files are watched: the pair is taken when it is whole, and the host goes on with what it had until then', async () => {
  const { cert, key } = await authority.issue(HONEST);
  const next = await authority.issue(HONEST);
  for (const [name, pem] of Object.entries({ cert, key }))
    writeFileSync(`${root}/watched-${name}`, pem, { mode: 0o600 });
  const seen: string[] = [];
  const note = Promise.withResolvers<void>();
  const loaded = Promise.withResolvers<void>();
  const logger: Logger = {
    ...silentLogger,
    warn(_fields, message) {
      seen.push(message);
      note.resolve();
    },
    info(_fields, message) {
      if (message === 'certificates were loaded') loaded.resolve();
    },
  };
  const tls = { ca: authority.ca, cert: `${root}/watched-cert`, key: `${root}/watched-key`, reloadIntervalMs: 20 };
  const host = await open(tls, { logger });
  writeFileSync(`${root}/watched-cert`, next.cert);
  await note.promise;
  assert.match(seen[0], /the ones before stay in use/);
  writeFileSync(`${root}/watched-key`, next.key);
  await loaded.promise;
  await host.close();
});

test('several engines over mutual TLS, in real threads: each has the certificate of its host, and new ones reach them all', async () => {
  const members = { 1: '127.0.0.1:23031', 2: '127.0.0.1:23032', 3: '127.0.0.1:23033' };
  const journals = new URL('processes/journal.ts', import.meta.url);
  const shardIds = [1, 2, 3, 4];
  const patience = { timeoutMs: 60_000 };
  const hosts: NodeHost[] = [];
  after(() => Promise.all(hosts.map((host) => host.close())));
  const start = async (id: 1 | 2 | 3, ca: string, by: Authority): Promise<void> => {
    hosts[id - 1] = await NodeHost.open({
      dir: `${root}/threads-${id}`,
      raftAddress: members[id],
      engines: id === 1 ? 1 : 2,
      tls: { ca, ...(await by.issue(HONEST)) },
    });
    for (const shardId of shardIds) {
      await hosts[id - 1].startReplica({ shardId, replicaId: id, members, electionRtt: 150 }, journals);
    }
  };
  const lines = new Map(shardIds.map((shardId): [number, string[]] => [shardId, []]));
  /** In sessions, which send again what a connection lost. */
  const write = async (round: string): Promise<void> => {
    for (const [at, host] of hosts.entries()) {
      for (const shardId of shardIds) {
        const line = `${round} from ${at} to ${shardId}`;
        const session = await host.openSession(shardId, patience);
        await session.propose(text(line), patience);
        lines.get(shardId)!.push(line);
      }
    }
  };
  for (const id of [1, 2, 3] as const) await start(id, authority.ca + other.ca, authority);
  await write('before');
  assert.deepEqual(
    hosts[2].info().shards.map(({ engine }) => engine),
    [0, 1, 0, 1],
  );
  for (const host of hosts) {
    // What does not hold is refused before any thread hears of it.
    const elsewhere = await authority.issue({ ...HONEST, ip: ['10.0.0.1'] });
    await assert.rejects(host.reloadTls(elsewhere), { code: 'ERR_TLS_CONFIG' });
    await host.reloadTls({ ...(await other.issue(HONEST)), disconnect: true });
  }
  await write('with new certificates');
  // Who had not heard of the new certificates, or still believed the old authority alone, would reach nobody from now on.
  for (const host of hosts) await host.reloadTls({ ca: other.ca, disconnect: true });
  await hosts[2].close();
  await start(3, other.ca, other);
  await write('with the new authority alone');
  for (const host of hosts) {
    for (const [shardId, expected] of lines) {
      await host.whenReady(shardId, patience);
      assert.deepEqual(host.info().shards.find((shard) => shard.shardId === shardId)!.state, 'running');
      assert.deepEqual(await host.staleRead(shardId, 'all'), expected);
    }
  }
});
