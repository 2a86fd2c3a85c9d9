/** `PUT /kv/<key>` over HTTP/1.1, pipelined: answers come in the order of the requests. */
import { NOTHING, type Protocol } from './protocol.ts';

const END = Buffer.from('\r\n\r\n');

export function http1(host: string): Protocol {
  let rest: Buffer = NOTHING;
  let answered = 0;
  return {
    hello: () => NOTHING,
    put(key, value) {
      const head = `PUT /kv/${key} HTTP/1.1\r\nhost: ${host}\r\ncontent-length: ${value.length}\r\n\r\n`;
      return Buffer.concat([Buffer.from(head, 'latin1'), value]);
    },
    receive(chunk, onAnswer) {
      const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
      let at = 0;
      for (;;) {
        const end = bytes.indexOf(END, at);
        if (end < 0) break;
        const head = bytes.toString('latin1', at, end);
        const length = /\r\ncontent-length: (\d+)/i.exec(head);
        if (length === null || !head.startsWith('HTTP/1.1 200 ')) throw new Error(`the server answered ${head}`);
        const next = end + END.length + Number(length[1]);
        if (next > bytes.length) break;
        at = next;
        onAnswer(answered++);
      }
      rest = bytes.subarray(at);
    },
    takeReply: () => NOTHING,
  };
}
