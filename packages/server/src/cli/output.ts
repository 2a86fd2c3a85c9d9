/** How commands say what they found: lines for people, or one JSON document; errors on standard error, with their codes. */
import { once } from 'node:events';
import { DrakkarError } from 'drakkar';

export interface OutputFlags {
  readonly json?: boolean;
}

/** What a command found, and whether all is well. */
export interface Answer {
  readonly ok: boolean;
  readonly value: object;
  readonly lines: readonly string[];
}

/** Runs a command; prints its answer and sets the exit code. */
export async function answer(flags: OutputFlags, work: () => Promise<Answer>): Promise<void> {
  await guard(flags, async () => {
    const { ok, value, lines } = await work();
    await write(flags.json === true ? JSON.stringify(value, undefined, 2) : lines.join('\n'));
    process.exitCode = ok ? 0 : 1;
  });
}

/** Runs `work`; an error becomes a message and exit code 1. */
export async function guard(flags: OutputFlags, work: () => Promise<void>): Promise<void> {
  // The library's timers let a process end; a command that waits for one must not.
  const awake = setInterval(() => {}, 1 << 30);
  try {
    await work();
  } catch (error) {
    const { code, message } = describeError(error);
    if (flags.json === true) await write(JSON.stringify({ ok: false, code, message }, undefined, 2));
    process.stderr.write(`drakkar: ${code}: ${message}\n`);
    process.exitCode = 1;
  } finally {
    clearInterval(awake);
  }
}

function describeError(error: unknown): { code: string; message: string } {
  if (DrakkarError.is(error)) return { code: error.code, message: error.message };
  const { code, message, cause } = error as { code?: unknown; message?: unknown; cause?: { message?: string } };
  const why = cause?.message === undefined ? '' : ` (${cause.message})`;
  return { code: typeof code === 'string' ? code : 'ERR_FAILED', message: `${String(message ?? error)}${why}` };
}

/** Waits when the reader is slower. */
export async function write(text: string): Promise<void> {
  if (!process.stdout.write(`${text}\n`)) await once(process.stdout, 'drain');
}

/** Columns as wide as they must be; the first row is the heading. */
export function table(rows: readonly (readonly (string | number | undefined)[])[]): string[] {
  const cells = rows.map((row) => row.map((cell) => String(cell ?? '-')));
  const widths = cells[0].map((_, column) => Math.max(...cells.map((row) => row[column].length)));
  return cells.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]))
      .join('  ')
      .trimEnd(),
  );
}

export function bytes(count: number): string {
  for (const [unit, size] of [
    ['GiB', 2 ** 30],
    ['MiB', 2 ** 20],
    ['KiB', 2 ** 10],
  ] as const) {
    if (count >= size) return `${(count / size).toFixed(1)} ${unit}`;
  }
  return `${count} B`;
}
