/** docs/getting-started.md: its files compile, and its terminals say what the page says. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface, type Interface } from 'node:readline';
import { test } from 'node:test';
import { blocksOf, filesOf, plainEnv, readGuide, typecheck, withFiles } from './guide.ts';

const page = readGuide('docs/getting-started.md');

interface Step {
  readonly terminal: number;
  /** `$`: a command of the shell; `>`: a line for the program; a blank: what it prints. */
  readonly kind: '$' | '>' | ' ';
  readonly text: string;
}

function stepsOf(block: string): Step[] {
  return block
    .trimEnd()
    .split('\n')
    .map((line) => {
      const match = /^(\d) ([$> ]) (.*)$/.exec(line);
      assert.ok(match, line);
      return { terminal: Number(match[1]), kind: match[2] as Step['kind'], text: match[3] };
    });
}

/** A step that takes so long does not end at all. */
const STEP_LIMIT_MS = 60_000;

/** One program at a time, started, fed and listened to. */
class Terminal {
  private readonly cwd: string;
  private child: ChildProcess | undefined;
  private lines: AsyncIterator<string> | undefined;
  private reader: Interface | undefined;

  constructor(cwd: string) {
    this.cwd = cwd;
  }

  run(command: string): void {
    const [program, ...args] = command.split(' ');
    assert.equal(program, 'node');
    this.child = spawn(process.execPath, ['--conditions=drakkar-source', ...args], {
      cwd: this.cwd,
      env: plainEnv(),
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.reader = createInterface({ input: this.child.stdout! });
    this.lines = this.reader[Symbol.asyncIterator]();
  }

  async type(line: string): Promise<void> {
    this.child!.stdin!.write(`${line}\n`);
    if (line !== 'stop') return;
    const signal = AbortSignal.timeout(STEP_LIMIT_MS);
    const [code] = (await once(this.child!, 'exit', { signal })) as [number | null];
    assert.equal(code, 0);
    this.child = undefined;
  }

  async expect(text: string): Promise<void> {
    const late = AbortSignal.timeout(STEP_LIMIT_MS);
    const tooLate = new Promise<never>((_, reject) => {
      late.addEventListener('abort', () => reject(new Error(`it does not say ${text}`)));
    });
    const { value, done } = await Promise.race([this.lines!.next(), tooLate]);
    assert.ok(done !== true, `it ended instead of saying ${text}`);
    const pattern = text.split('…').map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&'));
    assert.match(value, new RegExp(`^${pattern.join('.*')}$`));
  }

  kill(): void {
    this.reader?.close();
    this.child?.kill('SIGKILL');
  }
}

test('the files compile, and three terminals say what the page says', { timeout: 240_000 }, async () => {
  const files = filesOf(page);
  assert.deepEqual([...files.keys()], ['ledger.ts', 'host.ts']);
  const moved = new Map(
    [...files].map(([name, source]) => [name, source.replaceAll('127.0.0.1:730', '127.0.0.1:2623')]),
  );
  await withFiles(moved, async (dir) => {
    assert.equal(typecheck(dir), '');
    const terminals = new Map([1, 2, 3].map((id) => [id, new Terminal(dir)]));
    try {
      const steps = blocksOf(page, 'console').flatMap(stepsOf);
      assert.ok(steps.length > 40);
      for (const { terminal, kind, text } of steps) {
        const at = terminals.get(terminal)!;
        if (kind === '$') at.run(text);
        else if (kind === '>') await at.type(text);
        else await at.expect(text);
      }
    } finally {
      for (const terminal of terminals.values()) terminal.kill();
    }
  });
});

test('every block of the page is run, but for the installation', () => {
  assert.equal([...page.matchAll(/^```\w+$/gm)].length, 1 + filesOf(page).size + blocksOf(page, 'console').length);
  const [install] = blocksOf(page, 'sh');
  assert.match(install, /npm install drakkar$/m);
});
