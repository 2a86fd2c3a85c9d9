/**
 * The heads of requests that the fast lane takes: one of three methods on a plainly written key, and none but harmless fields. Strict
 * on purpose: whatever else may be meant, or may be malformed, is for Node's own parser to say.
 */
import { KEY_MAX_BYTES } from './commands.ts';

export type Method = 'PUT' | 'GET' | 'DELETE';

export interface RequestHead {
  readonly method: Method;
  readonly key: string;
  readonly bodyBytes: number;
}

/** Nothing in a key that a URL or JSON would write in another way. */
const REQUEST_LINE = /(PUT|GET|DELETE) \/kv\/([\w.~:@,;=!*()$&'+/-]+) HTTP\/1\.1\r\n/y;
/** Path segments that URLs resolve. */
const DOTS = /(?:^|\/)\.\.?(?:\/|$)/;
const FIELD =
  /(host|content-length|connection|content-type|accept|accept-encoding|accept-language|user-agent): *([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)\r\n/iy;
const LENGTH = /^\d{1,9}$/;

/** `text`: from the request line up to the line end of the last field. Undefined: not for the fast lane. */
export function readHead(text: string): RequestHead | undefined {
  REQUEST_LINE.lastIndex = 0;
  const line = REQUEST_LINE.exec(text);
  if (line === null) return undefined;
  const method = line[1] as Method;
  const key = line[2];
  if (key.length > KEY_MAX_BYTES || DOTS.test(key)) return undefined;
  let hosts = 0;
  let bodyBytes = -1;
  for (let at = REQUEST_LINE.lastIndex; at < text.length; at = FIELD.lastIndex) {
    FIELD.lastIndex = at;
    const field = FIELD.exec(text);
    if (field === null) return undefined;
    const value = field[2];
    switch (field[1].toLowerCase()) {
      case 'host':
        hosts++;
        break;
      case 'content-length':
        if (bodyBytes >= 0 || !LENGTH.test(value)) return undefined;
        bodyBytes = Number(value);
        break;
      case 'connection':
        if (value.toLowerCase() !== 'keep-alive') return undefined;
        break;
      default: // says nothing that matters here
    }
  }
  // A body is what a put has, and nothing else.
  if (hosts !== 1 || (method === 'PUT') !== bodyBytes >= 0) return undefined;
  return { method, key, bodyBytes: Math.max(bodyBytes, 0) };
}
