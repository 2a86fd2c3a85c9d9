/** The generator's protocols, against what servers may send: in pieces of any size, out of order, refusals. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type ServerHttp2Stream } from 'node:http2';
import { connect, type AddressInfo } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import { grpc, putMessage, varint } from '../gateway/grpc.ts';
import { http1 } from '../gateway/http1.ts';
import type { Protocol } from '../gateway/protocol.ts';

/** Feeds `bytes` cut at the given places; gives the answered sequences. */
function feed(protocol: Protocol, bytes: Buffer, cuts: readonly number[]): number[] {
  const answered: number[] = [];
  const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  for (let i = 1; i < places.length; i++)
    protocol.receive(bytes.subarray(places[i - 1], places[i]), (sequence) => answered.push(sequence));
  return answered;
}

const answer = (status: string, body: string): string =>
  `HTTP/1.1 ${status}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

test('http1 counts answers in order, however they are cut', () => {
  const bytes = Buffer.from(['{}', '', '{"version":7}'].map((body) => answer('200 OK', body)).join(''));
  fc.assert(
    fc.property(fc.array(fc.nat(200), { maxLength: 8 }), (cuts) => {
      assert.deepEqual(feed(http1('h:1'), bytes, cuts), [0, 1, 2]);
    }),
  );
});

test('http1 takes nothing but success', () => {
  assert.throws(() => feed(http1('h:1'), Buffer.from(answer('503 Service Unavailable', '{}')), []), /503/);
  assert.throws(() => feed(http1('h:1'), Buffer.from('HTTP/1.1 200 OK\r\n\r\n'), []), /200 OK/);
});

test('numbers and messages are encoded as protobuf says', () => {
  assert.deepEqual([...varint(0)], [0]);
  assert.deepEqual([...varint(127)], [127]);
  assert.deepEqual([...varint(300)], [0xac, 0x02]);
  const message = putMessage('k1', Buffer.from('abc'));
  assert.equal(message.toString('hex'), `00${'00000009'}0a026b31${'1203'}616263`);
});

/** An HTTP/2 server that is not ours checks every byte of the client's frames. */
async function withServer(
  onStream: (stream: ServerHttp2Stream, headers: Record<string, unknown>, body: Buffer) => void,
  puts: number,
): Promise<number[]> {
  const server = createServer({ settings: { initialWindowSize: 65_535 } });
  server.on('stream', (stream, headers) => {
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('end', () => onStream(stream, headers, Buffer.concat(chunks)));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const protocol = grpc(`127.0.0.1:${port}`);
  const socket = connect(port, '127.0.0.1');
  const answered: number[] = [];
  try {
    await new Promise<void>((resolve, reject) => {
      let sent = 0;
      const fill = (): void => {
        while (sent < puts) {
          const put = protocol.put(`k${sent}`, Buffer.alloc(1000, 'v'));
          if (put === undefined) break;
          socket.write(put);
          sent++;
        }
        socket.write(protocol.takeReply());
        if (answered.length === puts) resolve();
      };
      socket.on('connect', () => {
        socket.write(protocol.hello());
        fill();
      });
      socket.on('data', (chunk) => {
        try {
          protocol.receive(chunk, (sequence) => answered.push(sequence));
          fill();
        } catch (error) {
          reject(error);
        }
      });
      socket.on('error', reject);
    });
  } finally {
    socket.destroy();
    server.close();
  }
  return answered;
}

const PUTS = 200;

test("grpc puts arrive whole at another's server, within its window, and are counted", async () => {
  const bodies: string[] = [];
  const answered = await withServer((stream, headers, body) => {
    assert.equal(headers[':path'], '/etcdserverpb.KV/Put');
    assert.equal(headers['content-type'], 'application/grpc');
    assert.equal(headers['te'], 'trailers');
    bodies.push(body.toString('latin1'));
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.end(Buffer.from('00000000020a00', 'hex'));
  }, PUTS);
  const numbers = Array.from({ length: PUTS }, (_, i) => i);
  assert.deepEqual(
    answered.toSorted((a, b) => a - b),
    numbers,
  );
  const wanted = numbers.map((i) => putMessage(`k${i}`, Buffer.alloc(1000, 'v')).toString('latin1'));
  assert.deepEqual(bodies.toSorted(), wanted.toSorted());
});

test('a grpc call without a message is a refusal', async () => {
  await assert.rejects(
    withServer((stream) => stream.respond({ ':status': 200, 'grpc-status': '8' }, { endStream: true }), 1),
    /refused/,
  );
});

test('grpc stops at the window of the server and goes on with its updates', () => {
  const protocol = grpc('h:1');
  const value = Buffer.alloc(1000);
  const untilFull = (): number => {
    let count = 0;
    while (count < 1000 && protocol.put('k', value) !== undefined) count++;
    return count;
  };
  assert.equal(untilFull(), Math.floor(65_535 / putMessage('k', value).length));
  const update = Buffer.from('00000408000000000000002800', 'hex'); // WINDOW_UPDATE of 10,240 for the connection
  protocol.receive(update, () => {});
  assert.ok(untilFull() >= 9);
});
