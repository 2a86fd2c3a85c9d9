/** The HTTP face: routes, limits, status codes. Every error is JSON with a code; no input may end the process. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { DrakkarError, type NodeHost } from 'drakkar';
import type { Logger } from 'pino';
import { KEY_MAX_BYTES, VALUE_MAX_BYTES, conflictVersion, isConflict } from './commands.ts';
import { TIMEOUT_MS, deadlineIn, type Deadline, type ShardedStore } from './kv.ts';
import { MEMBER_ACTIONS, changeMembers, type MemberAction } from './members.ts';

/** How long a connection may do nothing. */
export const KEEP_ALIVE_MS = 30_000;
const TIMEOUT_MAX_MS = 60_000;
const LIST_LIMIT = 100;
const LIST_LIMIT_MAX = 10_000;

/** An answer that is an error of the request itself. */
class RequestError extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export interface HttpContext {
  readonly host: NodeHost;
  readonly store: ShardedStore;
  readonly logger: Logger;
  readonly counters: Counters;
  /** Where `POST /export` puts snapshots; without it there is none. */
  readonly exportDir?: string;
  /** Whether `POST /members` changes who belongs to the shards, and `POST /format` ends upgrades. */
  readonly isAdmin?: boolean;
}

export interface Counters {
  requests: number;
  errors: number;
}

export function createHttpServer(context: HttpContext): Server {
  const { counters } = context;
  const server = createServer(
    { keepAliveTimeout: KEEP_ALIVE_MS, requestTimeout: TIMEOUT_MAX_MS * 2 },
    (request, response) => {
      counters.requests++;
      route(context, request, response).catch((error: unknown) => {
        counters.errors++;
        sendError(context, request, response, error);
      });
    },
  );
  server.on('clientError', (_error, socket) => {
    if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
  });
  return server;
}

async function route(context: HttpContext, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { pathname, searchParams } = parseUrl(request.url ?? '/');
  if (pathname.startsWith('/kv/')) {
    await onKey(context, request, response, keyOf(pathname.slice(4)), searchParams);
    return;
  }
  if (pathname === '/export' && context.exportDir !== undefined) {
    await onExport(context.host, context.exportDir, request, response, searchParams);
    return;
  }
  if (pathname === '/members' && context.isAdmin === true) {
    await onMembers(context.host, request, response, searchParams);
    return;
  }
  if (pathname === '/format' && context.isAdmin === true && request.method === 'POST') {
    await context.host.enableFormat();
    sendJson(response, 200, context.host.info().formats);
    return;
  }
  if (request.method !== 'GET') throw new RequestError(405, 'ERR_METHOD', `${request.method} is not for ${pathname}`);
  switch (pathname) {
    case '/kv':
      sendJson(response, 200, await list(context.store, searchParams));
      return;
    case '/status':
      sendJson(response, 200, status(context));
      return;
    case '/healthz': {
      const health = checkHealth(context.host, context.store.shardCount);
      sendJson(response, health.healthy ? 200 : 503, health);
      return;
    }
    case '/metrics':
      response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4' });
      response.end(`${context.host.metrics()}${httpMetrics(context.counters)}`);
      return;
    default:
      throw new RequestError(
        404,
        'ERR_ROUTE',
        `there is no ${pathname}; there are /kv, /kv/<key>, /status, /healthz, /metrics`,
      );
  }
}

export function notFound(key: string): Error {
  return new RequestError(404, 'ERR_NOT_FOUND', `there is no key ${key}`);
}

function parseUrl(url: string): URL {
  try {
    return new URL(url, 'http://host');
  } catch {
    throw new RequestError(400, 'ERR_URL', 'the URL is malformed');
  }
}

function keyOf(encoded: string): string {
  let key: string;
  try {
    key = decodeURIComponent(encoded);
  } catch {
    throw new RequestError(400, 'ERR_KEY', 'the key is not valid percent-encoded UTF-8');
  }
  if (key === '') throw new RequestError(400, 'ERR_KEY', 'the key is empty');
  if (Buffer.byteLength(key) > KEY_MAX_BYTES) {
    throw new RequestError(413, 'ERR_KEY', `the key has more than ${KEY_MAX_BYTES} bytes`);
  }
  return key;
}

function wholeNumber(params: URLSearchParams, name: string, fallback: number, max: number): number {
  const text = params.get(name);
  if (text === null) return fallback;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1 || value > max) {
    throw new RequestError(
      400,
      'ERR_PARAMETER',
      `${name} is ${JSON.stringify(text)}; expected a whole number from 1 to ${max}`,
    );
  }
  return value;
}

async function onKey(
  context: HttpContext,
  request: IncomingMessage,
  response: ServerResponse,
  key: string,
  params: URLSearchParams,
): Promise<void> {
  const { store } = context;
  const deadline = deadlineIn(wholeNumber(params, 'timeoutMs', TIMEOUT_MS, TIMEOUT_MAX_MS));
  switch (request.method) {
    case 'GET':
    case 'HEAD': {
      const found = await (params.get('stale') === 'true' ? store.getStale(key) : store.get(key, deadline));
      if (found === undefined) throw notFound(key);
      response.writeHead(200, {
        'content-type': 'application/octet-stream',
        'content-length': found.value.length,
        etag: `"${found.version}"`,
      });
      response.end(request.method === 'HEAD' ? undefined : found.value);
      return;
    }
    case 'PUT': {
      const value = await readBody(request);
      const answer = await put(store, key, value, request, deadline);
      answerWrite(response, store, key, answer);
      return;
    }
    case 'DELETE': {
      const expected = expectedVersion(request);
      const answer =
        expected === undefined ? await store.delete(key, deadline) : await store.deleteIf(key, expected, deadline);
      if (answer === 0) throw notFound(key);
      answerWrite(response, store, key, answer);
      return;
    }
    default:
      throw new RequestError(405, 'ERR_METHOD', `${request.method} is not for keys; there are GET, PUT, DELETE`);
  }
}

function put(
  store: ShardedStore,
  key: string,
  value: Uint8Array,
  request: IncomingMessage,
  deadline: Deadline,
): Promise<number> {
  const expected = expectedVersion(request);
  return expected === undefined ? store.put(key, value, deadline) : store.putIf(key, value, expected, deadline);
}

/** `If-Match: "version"` or `If-None-Match: *` (version 0); undefined without a condition. */
function expectedVersion(request: IncomingMessage): number | undefined {
  const none = request.headers['if-none-match'];
  const match = request.headers['if-match'];
  if (none !== undefined) {
    if (none.trim() === '*' && match === undefined) return 0;
    throw new RequestError(400, 'ERR_CONDITION', 'If-None-Match: expected * and no If-Match beside it');
  }
  if (match === undefined) return undefined;
  const version = /^\s*"?(\d{1,15})"?\s*$/.exec(match);
  if (version === null)
    throw new RequestError(400, 'ERR_CONDITION', 'If-Match: expected a version, as in If-Match: "42"');
  return Number(version[1]);
}

function answerWrite(response: ServerResponse, store: ShardedStore, key: string, answer: number): void {
  if (isConflict(answer)) {
    const version = conflictVersion(answer);
    sendJson(response, 412, {
      code: 'ERR_CONFLICT',
      message: version === 0 ? 'there is no such key' : `the key has version ${version}`,
      version,
    });
    return;
  }
  sendJson(response, 200, { key, version: answer, shard: store.shardOf(key) }, { etag: `"${answer}"` });
}

/** A snapshot of one shard as this host has it, into a new directory under the one the operator named. */
async function onExport(
  host: NodeHost,
  exportDir: string,
  request: IncomingMessage,
  response: ServerResponse,
  params: URLSearchParams,
): Promise<void> {
  if (request.method !== 'POST') throw new RequestError(405, 'ERR_METHOD', `${request.method} is not for /export`);
  if (!params.has('shard')) throw new RequestError(400, 'ERR_PARAMETER', 'shard is missing; expected its id');
  const shardId = wholeNumber(params, 'shard', 1, Number.MAX_SAFE_INTEGER);
  const timeoutMs = wholeNumber(params, 'timeoutMs', TIMEOUT_MS, TIMEOUT_MAX_MS);
  const dir = join(exportDir, `shard-${shardId}-${new Date().toISOString().replaceAll(/[:.]/g, '-')}`);
  const { index } = await host.requestSnapshot(shardId, { exportTo: dir, timeoutMs });
  sendJson(response, 200, { shardId, index, dir });
}

/** One change of one shard; called on any host of it. */
async function onMembers(
  host: NodeHost,
  request: IncomingMessage,
  response: ServerResponse,
  params: URLSearchParams,
): Promise<void> {
  if (request.method !== 'POST') throw new RequestError(405, 'ERR_METHOD', `${request.method} is not for /members`);
  const action = params.get('action') as MemberAction;
  if (!MEMBER_ACTIONS.includes(action)) {
    throw new RequestError(400, 'ERR_PARAMETER', `action is ${action}; expected one of ${MEMBER_ACTIONS.join(', ')}`);
  }
  for (const name of ['shard', 'replica'])
    if (!params.has(name)) throw new RequestError(400, 'ERR_PARAMETER', `${name} is missing; expected its id`);
  const shardId = wholeNumber(params, 'shard', 1, Number.MAX_SAFE_INTEGER);
  const replicaId = wholeNumber(params, 'replica', 1, Number.MAX_SAFE_INTEGER);
  const timeoutMs = wholeNumber(params, 'timeoutMs', TIMEOUT_MS, TIMEOUT_MAX_MS);
  const changed = await changeMembers(host, { action, shardId, replicaId, timeoutMs, params }).catch(
    (error: unknown) => {
      if (!DrakkarError.is(error, 'ERR_INVALID_OPTION')) throw error;
      throw new RequestError(400, error.code, error.message);
    },
  );
  sendJson(response, 200, { shardId, replicaId, action, ...changed });
}

function readBody(request: IncomingMessage): Promise<Uint8Array> {
  const tooBig = (): RequestError =>
    new RequestError(413, 'ERR_VALUE', `the value has more than ${VALUE_MAX_BYTES} bytes`);
  if (Number(request.headers['content-length'] ?? 0) > VALUE_MAX_BYTES) return Promise.reject(tooBig());
  const chunks: Buffer[] = [];
  let size = 0;
  // Events: an async iterator costs more than all the rest of a small request.
  return new Promise((resolve, reject) => {
    request.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size <= VALUE_MAX_BYTES) chunks.push(chunk);
      else {
        request.pause();
        reject(tooBig());
      }
    });
    request.on('end', () => resolve(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks)));
    request.on('error', reject);
  });
}

async function list(store: ShardedStore, params: URLSearchParams): Promise<object> {
  const limit = wholeNumber(params, 'limit', LIST_LIMIT, LIST_LIMIT_MAX);
  const deadline = deadlineIn(wholeNumber(params, 'timeoutMs', TIMEOUT_MS, TIMEOUT_MAX_MS));
  const found = await store.list(params.get('prefix') ?? '', params.get('after') ?? '', limit, deadline);
  const entries = found.map(({ key, value, version }) => ({ key, ...asJson(value), version }));
  const last = found[found.length - 1];
  return found.length === limit && last !== undefined ? { entries, next: last.key } : { entries };
}

/** Text as text; other bytes as base64. */
function asJson(value: Uint8Array): { value: string } | { valueBase64: string } {
  try {
    return { value: new TextDecoder('utf-8', { fatal: true }).decode(value) };
  } catch {
    return { valueBase64: Buffer.from(value).toString('base64') };
  }
}

function status({ host, store }: HttpContext): object {
  const info = host.info();
  return {
    hostId: info.hostId,
    raftAddress: info.raftAddress,
    shardCount: store.shardCount,
    uptimeMs: info.uptimeMs,
    isDiskFull: info.isDiskFull,
    stopped: info.stopped.map((shard) => ({ ...shard, failure: shard.failure?.code })),
    failure: info.failure?.code,
    shards: info.shards.map((shard) => ({
      ...shard,
      failure: shard.failure?.code,
      ...(shard.state === 'running' ? { digest: host.hash(shard.shardId) } : {}),
    })),
    peers: info.peers,
    snapshots: info.snapshots,
    formats: info.formats,
    log: info.log,
  };
}

/** Healthy: the host's log works, and a replica of every shard runs and knows a leader. */
function checkHealth(host: NodeHost, shardCount: number): { healthy: boolean; problems: string[] } {
  const problems: string[] = [];
  if (host.failed !== undefined) problems.push(host.failed.message);
  const { shards } = host.info();
  if (shards.length < shardCount) {
    problems.push(`${shardCount - shards.length} of ${shardCount} shards have no replica here; were they removed?`);
  }
  for (const shard of shards) {
    if (shard.state !== 'running') problems.push(`shard ${shard.shardId} is ${shard.state}`);
    else if (shard.leaderId === 0) problems.push(`shard ${shard.shardId} has no leader`);
  }
  return { healthy: problems.length === 0, problems };
}

function httpMetrics(counters: Counters): string {
  return [
    '# HELP drakkar_http_requests_total HTTP requests.',
    '# TYPE drakkar_http_requests_total counter',
    `drakkar_http_requests_total ${counters.requests}`,
    '# HELP drakkar_http_errors_total HTTP requests that ended with an error.',
    '# TYPE drakkar_http_errors_total counter',
    `drakkar_http_errors_total ${counters.errors}`,
    '',
  ].join('\n');
}

function sendJson(
  response: ServerResponse,
  statusCode: number,
  body: object,
  headers: Record<string, string> = {},
): void {
  const text = JSON.stringify(body);
  response.writeHead(statusCode, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    ...headers,
  });
  response.end(text);
}

function sendError(context: HttpContext, request: IncomingMessage, response: ServerResponse, error: unknown): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  // What is left of a body that nobody reads would be taken for the next request.
  if (!request.complete) response.setHeader('connection', 'close');
  const { status: statusCode, body } = describeError(error);
  if (statusCode === 500) {
    context.logger.error({ err: error, method: request.method, url: request.url }, 'request failed');
  }
  sendJson(response, statusCode, body);
}

/** What a client is told; 500 for what nobody foresaw. */
export function describeError(error: unknown): { status: number; body: object } {
  if (error instanceof RequestError) {
    return { status: error.status, body: { code: error.code, message: error.message } };
  }
  if (DrakkarError.is(error)) {
    const { code, message, retryable, outcome } = error;
    const statusCode = code === 'ERR_TIMEOUT' ? 504 : code === 'ERR_PAYLOAD_TOO_BIG' ? 413 : 503;
    return { status: statusCode, body: { code, message, retryable, outcome } };
  }
  const message = 'an unexpected error; the log of this host has more';
  return { status: 500, body: { code: 'ERR_INTERNAL', message } };
}
