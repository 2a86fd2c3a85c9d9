/**
 * The short way for plain requests on keys: read where they stand in what a connection brought, and answered with one write for all
 * that were answered in the same turn, however deep the client pipelines. Node's HTTP server costs several times as much for each.
 *
 * A connection stays here for as long as all its requests are of the kind that `request-head.ts` describes. With the first other one, or
 * one that comes in too many pieces, it goes over to the HTTP server for good, with all its unread bytes.
 */
import { STATUS_CODES, type Server } from 'node:http';
import type { Socket } from 'node:net';
import { KEEP_ALIVE_MS, describeError, notFound, type Counters } from './http.ts';
import { TIMEOUT_MS, deadlineIn, type ShardedStore } from './kv.ts';
import { readHead, type RequestHead } from './request-head.ts';
import type { Found } from './store.ts';

/** Larger ones, heads or bodies, are the HTTP server's. */
const HEAD_MAX_BYTES = 8192;
const BODY_MAX_BYTES = 64 * 1024;
/** Pieces that one request may come in: who trickles meets the HTTP server's deadlines. */
const PIECES_MAX = 16;
/** Requests of one connection that wait for their answers, and bytes of answers that it did not take, before it is not read any more. */
const WAITING_MAX = 1024;
const UNSENT_MAX_BYTES = 1024 * 1024;

const HEAD_END = Buffer.from('\r\n\r\n');
const NOTHING = Buffer.alloc(0);
const ALIVE = `\r\nconnection: keep-alive\r\nkeep-alive: timeout=${KEEP_ALIVE_MS / 1000}\r\n\r\n`;

/** One answer, as bytes in latin1; undefined until it is known. */
interface Answer {
  text: string | undefined;
}

export interface FastLane {
  /** Ends connections that wait for nothing, and the others with their last answer. */
  close(): void;
  /** Ends all. */
  destroy(): void;
}

interface Lane {
  readonly store: ShardedStore;
  readonly counters: Counters;
  readonly connections: Set<Connection>;
  readonly onError: (error: unknown, head: RequestHead) => void;
  /** Gives a connection to the HTTP server. */
  readonly handOver: (socket: Socket) => void;
}

/** Takes the place of the server's own way to begin with a connection. */
export function openFastLane(
  server: Server,
  { store, counters, onError }: Pick<Lane, 'store' | 'counters' | 'onError'>,
): FastLane {
  const begin = server.listeners('connection') as ((socket: Socket) => void)[];
  server.removeAllListeners('connection');
  const connections = new Set<Connection>();
  const handOver = (socket: Socket): void => {
    for (const listener of begin) listener.call(server, socket);
  };
  const lane: Lane = { store, counters, connections, onError, handOver };
  server.on('connection', (socket: Socket) => connections.add(new Connection(lane, socket)));
  return {
    close() {
      for (const connection of connections) connection.finish();
    },
    destroy() {
      for (const connection of connections) connection.destroy();
    },
  };
}

/** Connections with answers to write, once everything that became known in this turn is there. */
let answered: Connection[] = [];

function writeAnswers(): void {
  const connections = answered;
  answered = [];
  for (const connection of connections) connection.write();
}

class Connection {
  private readonly lane: Lane;
  private readonly socket: Socket;
  /** In the order of the requests; the first `sent` are written. */
  private readonly answers: Answer[] = [];
  private sent = 0;
  /** What came of a request that is not whole, or that must wait. */
  private rest: Buffer = NOTHING;
  private pieces = 0;
  private isAnswered = false;
  private isFull = false;
  /** Nothing is read any more: it goes over to the HTTP server, or ends, when all is answered. */
  private isLeaving = false;
  private isFinishing = false;
  private isGone = false;

  constructor(lane: Lane, socket: Socket) {
    this.lane = lane;
    this.socket = socket;
    socket.on('data', this.onData);
    socket.on('end', this.onEnd);
    socket.on('error', this.onError);
    socket.on('close', this.onClose);
    socket.on('drain', this.onDrain);
    socket.setTimeout(KEEP_ALIVE_MS, this.onIdle);
  }

  private get waiting(): number {
    return this.answers.length - this.sent;
  }

  private readonly onData = (chunk: Buffer): void => {
    const bytes = this.rest.length === 0 ? chunk : Buffer.concat([this.rest, chunk]);
    this.rest = NOTHING;
    this.read(bytes);
  };

  private read(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length && !this.isFull && !this.isLeaving) {
      const end = bytes.indexOf(HEAD_END, at);
      const headBytes = (end < 0 ? bytes.length : end) - at;
      const head = end < 0 || headBytes > HEAD_MAX_BYTES ? undefined : readHead(bytes.toString('latin1', at, end + 2));
      const isPiece = end < 0 && headBytes <= HEAD_MAX_BYTES;
      if (!isPiece && (head === undefined || head.bodyBytes > BODY_MAX_BYTES)) {
        this.leave();
        break;
      }
      const bodyAt = end + HEAD_END.length;
      if (head === undefined || bodyAt + head.bodyBytes > bytes.length) {
        if (++this.pieces > PIECES_MAX) this.leave();
        break;
      }
      this.pieces = 0;
      at = bodyAt + head.bodyBytes;
      this.take(head, bytes.subarray(bodyAt, at));
      this.look();
    }
    this.rest = at < bytes.length ? bytes.subarray(at) : NOTHING;
    if (this.isLeaving && this.waiting === 0) this.end();
  }

  private take(head: RequestHead, body: Uint8Array): void {
    const { store, counters } = this.lane;
    const { key } = head;
    const answer: Answer = { text: undefined };
    this.answers.push(answer);
    counters.requests++;
    const fail = (error: unknown): void => this.answer(answer, this.errorText(error, head));
    const done = (error: unknown, version: number): void => {
      if (error !== null) fail(error);
      else if (version === 0) fail(notFound(key));
      else this.answer(answer, writtenText(key, version, store.shardOf(key)));
    };
    if (head.method === 'PUT') store.putThen(key, body, done);
    else if (head.method === 'DELETE') store.deleteThen(key, done);
    else {
      store.get(key, deadlineIn(TIMEOUT_MS)).then((found) => {
        if (found === undefined) fail(notFound(key));
        else this.answer(answer, foundText(found));
      }, fail);
    }
  }

  private errorText(error: unknown, head: RequestHead): string {
    const { status, body } = describeError(error);
    this.lane.counters.errors++;
    if (status === 500) this.lane.onError(error, head);
    return problemText(status, body);
  }

  private answer(answer: Answer, text: string): void {
    answer.text = text;
    if (this.isAnswered) return;
    this.isAnswered = true;
    if (answered.push(this) === 1) process.nextTick(writeAnswers);
  }

  /** Writes what is answered in order. */
  write(): void {
    this.isAnswered = false;
    const { answers } = this;
    let text = '';
    while (this.sent < answers.length && answers[this.sent].text !== undefined) text += answers[this.sent++].text;
    if (this.sent === answers.length || this.sent > WAITING_MAX) {
      answers.splice(0, this.sent);
      this.sent = 0;
    }
    if (this.isGone || text === '') return;
    this.socket.write(text, 'latin1');
    if (this.isLeaving && this.waiting === 0) this.end();
    else this.goOn();
  }

  /** Whether more is read for now. */
  private look(): void {
    if (this.waiting < WAITING_MAX && this.socket.writableLength < UNSENT_MAX_BYTES) return;
    this.isFull = true;
    this.socket.pause();
  }

  private goOn(): void {
    if (!this.isFull || this.waiting > WAITING_MAX / 2 || this.socket.writableLength > UNSENT_MAX_BYTES / 2) return;
    this.isFull = false;
    const { rest } = this;
    this.rest = NOTHING;
    this.read(rest);
    if (!this.isFull && !this.isLeaving) this.socket.resume();
  }

  private readonly onDrain = (): void => this.goOn();

  private leave(): void {
    this.isLeaving = true;
    this.socket.pause();
  }

  private end(): void {
    const { socket, rest } = this;
    this.isGone = true;
    this.lane.connections.delete(this);
    if (this.isFinishing) {
      socket.end();
      socket.resume(); // to see its end
      return;
    }
    socket.setTimeout(0);
    for (const [event, listener] of [
      ['data', this.onData],
      ['end', this.onEnd],
      ['error', this.onError],
      ['close', this.onClose],
      ['drain', this.onDrain],
      ['timeout', this.onIdle],
    ] as const)
      socket.off(event, listener);
    if (rest.length > 0) socket.unshift(rest);
    this.lane.handOver(socket);
    socket.resume();
  }

  /** No request is taken any more; those that were are answered. */
  finish(): void {
    this.isFinishing = true;
    this.leave();
    if (this.waiting === 0) this.end();
  }

  destroy(): void {
    this.socket.destroy();
  }

  private readonly onIdle = (): void => {
    if (this.waiting === 0) this.socket.destroy();
  };

  private readonly onEnd = (): void => {
    if (!this.isGone) this.finish();
  };

  private readonly onError = (): void => {
    this.socket.destroy();
  };

  private readonly onClose = (): void => {
    this.isGone = true;
    this.lane.connections.delete(this);
  };
}

let dateText = '';
let dateSecond = 0;

function date(): string {
  const second = Math.floor(Date.now() / 1000);
  if (second !== dateSecond) {
    dateSecond = second;
    dateText = new Date(second * 1000).toUTCString();
  }
  return dateText;
}

function responseText(status: number, type: string, etag: string, body: string): string {
  return `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\ncontent-type: ${type}\r\ncontent-length: ${body.length}${etag}\r\ndate: ${date()}${ALIVE}${body}`;
}

/** A key of the fast lane is written in JSON as it is. */
function writtenText(key: string, version: number, shard: number): string {
  const json = `{"key":"${key}","version":${version},"shard":${shard}}`;
  return responseText(200, 'application/json', `\r\netag: "${version}"`, json);
}

function foundText({ value, version }: Found): string {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.length);
  return responseText(200, 'application/octet-stream', `\r\netag: "${version}"`, bytes.toString('latin1'));
}

function problemText(status: number, problem: object): string {
  return responseText(status, 'application/json', '', Buffer.from(JSON.stringify(problem)).toString('latin1'));
}
