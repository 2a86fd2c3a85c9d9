/** The image of both stores: a line of JSON for each counter, in order, so that equal states give equal images. */
export type Row = readonly [key: string, value: number];

const LINES_BYTES = 64 * 1024;

export async function* encodeRows(rows: Iterable<Row> | AsyncIterable<Row>): AsyncGenerator<Uint8Array> {
  let lines = '';
  for await (const row of rows) {
    lines += `${JSON.stringify(row)}\n`;
    if (lines.length < LINES_BYTES) continue;
    yield Buffer.from(lines);
    lines = '';
  }
  if (lines !== '') yield Buffer.from(lines);
}

/** Images come cut into pieces of any size. */
export async function* decodeRows(image: AsyncIterable<Uint8Array>): AsyncGenerator<Row> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of image) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = lines.pop()!;
    for (const line of lines) yield JSON.parse(line) as Row;
  }
}

/** Adds `by` to the counter `key`. */
export interface Add {
  readonly key: string;
  readonly by: number;
}

export const encodeAdd = (add: Add): Uint8Array => Buffer.from(JSON.stringify(add));
export const decodeAdd = (command: Uint8Array): Add => JSON.parse(Buffer.from(command).toString()) as Add;
