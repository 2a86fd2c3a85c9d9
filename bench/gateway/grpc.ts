/**
 * etcd's `KV/Put` over gRPC: as much of HTTP/2 (RFC 9113) as it takes. Headers are sent without the dynamic table, so that they are the
 * same bytes every time, and are not read: a unary call that failed has no message.
 */
import { NOTHING, type Protocol } from './protocol.ts';

const DATA = 0;
const HEADERS = 1;
const RST_STREAM = 3;
const SETTINGS = 4;
const PING = 6;
const GOAWAY = 7;
const WINDOW_UPDATE = 8;
const END_STREAM = 1;
const ACK = 1;
const END_HEADERS = 4;
const FRAME_HEADER_BYTES = 9;
const FIRST_WINDOW = 65_535;
const WINDOW_MAX = 2 ** 31 - 1;
/** Compressed flag and length in front of a gRPC message. */
const MESSAGE_PREFIX_BYTES = 5;

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes[3] = type;
  bytes[4] = flags;
  bytes.writeUInt32BE(stream, 5);
  payload.copy(bytes, FRAME_HEADER_BYTES);
  return bytes;
}

const text = (value: string): Buffer => Buffer.concat([Buffer.of(value.length), Buffer.from(value, 'latin1')]);

/** RFC 7541: indexed fields for method and scheme, literals without indexing for the rest. */
function headerBlock(host: string): Buffer {
  return Buffer.concat([
    Buffer.of(0x83, 0x86),
    Buffer.of(0x04),
    text('/etcdserverpb.KV/Put'),
    Buffer.of(0x01),
    text(host),
    Buffer.of(0x0f, 0x10), // content-type: 31 in the static table
    text('application/grpc'),
    Buffer.of(0x00),
    text('te'),
    text('trailers'),
  ]);
}

export function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (; value > 127; value >>>= 7) bytes.push((value & 127) | 128);
  return Buffer.of(...bytes, value);
}

/** A gRPC message with `PutRequest { key = 1; value = 2 }`. */
export function putMessage(key: string, value: Buffer): Buffer {
  const keyBytes = Buffer.from(key);
  const body = Buffer.concat([
    Buffer.of(0x0a),
    varint(keyBytes.length),
    keyBytes,
    Buffer.of(0x12),
    varint(value.length),
    value,
  ]);
  const prefix = Buffer.alloc(MESSAGE_PREFIX_BYTES);
  prefix.writeUInt32BE(body.length, 1);
  return Buffer.concat([prefix, body]);
}

export function grpc(host: string): Protocol {
  const headers = headerBlock(host);
  const withMessage = new Set<number>();
  let rest: Buffer = NOTHING;
  let replies: Buffer[] = [];
  let nextStream = 1;
  let window = FIRST_WINDOW;

  const onFrame = (
    bytes: Buffer,
    at: number,
    length: number,
    stream: number,
    onAnswer: (sequence: number) => void,
  ): void => {
    const type = bytes[at + 3];
    const flags = bytes[at + 4];
    const payload = at + FRAME_HEADER_BYTES;
    if (type === DATA) withMessage.add(stream);
    else if (type === HEADERS && (flags & END_STREAM) !== 0) {
      if (!withMessage.delete(stream)) throw new Error('the server refused a put');
      onAnswer((stream - 1) / 2);
    } else if (type === SETTINGS && (flags & ACK) === 0) replies.push(frame(SETTINGS, ACK, 0, NOTHING));
    else if (type === PING && (flags & ACK) === 0)
      replies.push(frame(PING, ACK, 0, bytes.subarray(payload, payload + length)));
    else if (type === WINDOW_UPDATE && stream === 0) window += bytes.readUInt32BE(payload);
    else if (type === RST_STREAM || type === GOAWAY) throw new Error('the server ended a stream');
  };

  return {
    hello() {
      const update = Buffer.alloc(4);
      update.writeUInt32BE(WINDOW_MAX - FIRST_WINDOW);
      return Buffer.concat([
        Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1'),
        frame(SETTINGS, 0, 0, NOTHING),
        frame(WINDOW_UPDATE, 0, 0, update),
      ]);
    },
    put(key, value) {
      const message = putMessage(key, value);
      if (message.length > window) return undefined;
      window -= message.length;
      const stream = nextStream;
      nextStream += 2;
      return Buffer.concat([frame(HEADERS, END_HEADERS, stream, headers), frame(DATA, END_STREAM, stream, message)]);
    },
    receive(chunk, onAnswer) {
      const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
      let at = 0;
      while (bytes.length - at >= FRAME_HEADER_BYTES) {
        const length = bytes.readUIntBE(at, 3);
        if (bytes.length - at < FRAME_HEADER_BYTES + length) break;
        onFrame(bytes, at, length, bytes.readUInt32BE(at + 5), onAnswer);
        at += FRAME_HEADER_BYTES + length;
      }
      rest = bytes.subarray(at);
    },
    takeReply() {
      if (replies.length === 0) return NOTHING;
      const all = Buffer.concat(replies);
      replies = [];
      return all;
    },
  };
}
