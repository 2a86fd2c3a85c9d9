/** Requests of the clients of demo and chaos: keep-alive connections, one deadline per request, the body as text. */
import { Agent, request, type OutgoingHttpHeaders } from 'node:http';

export interface Answer {
  readonly status: number;
  readonly body: string;
  /** Version of the key that was read or written. */
  readonly etag: string | undefined;
}

const agent = new Agent({ keepAlive: true, maxSockets: 128, maxFreeSockets: 128, scheduling: 'fifo' });

/** Rejects when the connection fails or nothing is answered in time. */
export function send(
  method: string,
  url: string,
  body?: string,
  timeoutMs = 10_000,
  headers: OutgoingHttpHeaders = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { method, agent, timeout: timeoutMs, headers }, (incoming) => {
      const chunks: Buffer[] = [];
      incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
      incoming.on('end', () => {
        const { statusCode = 0, headers: answered } = incoming;
        resolve({ status: statusCode, body: Buffer.concat(chunks).toString(), etag: answered.etag });
      });
      incoming.on('error', reject);
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer in ${timeoutMs} ms`)));
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

export async function getJson<T>(url: string): Promise<T> {
  const { status, body } = await send('GET', url);
  if (status !== 200) throw new Error(`${url} answered ${status}: ${body.slice(0, 200)}`);
  return JSON.parse(body) as T;
}
