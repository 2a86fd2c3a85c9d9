/**
 * What happened, in order: always as a hash, by which two runs are compared, and as lines for people when they are wanted. The lines
 * cost time, so that a run that fails is run again with them.
 */

/** Lines kept; the oldest go first. */
const LINES_MAX = 100_000;

export class Trace {
  /** Lines are wanted. */
  readonly isKept: boolean;
  private readonly nowMs: () => number;
  private readonly lines: string[] = [];
  private first = 0x811c9dc5;
  private second = 0x9e3779b9;
  private readonly bits = new Float64Array(1);
  private readonly words = new Uint32Array(this.bits.buffer);

  constructor(nowMs: () => number, isKept: boolean) {
    this.nowMs = nowMs;
    this.isKept = isKept;
  }

  /** `who` did `what`; numbers and texts that belong to it follow. */
  note(who: string, what: string, ...details: readonly (number | string | boolean)[]): void {
    const nowMs = this.nowMs();
    this.fold(nowMs);
    this.foldText(who);
    this.foldText(what);
    for (const detail of details) {
      if (typeof detail === 'number') this.fold(detail);
      else this.foldText(String(detail));
    }
    this.line(who, what, ...details);
  }

  /** Only for people: not part of the hash. */
  line(who: string, what: string, ...details: readonly (number | string | boolean)[]): void {
    if (!this.isKept) return;
    const time = this.nowMs().toFixed(2).padStart(10);
    this.lines.push(`${time}  ${who.padEnd(8)} ${what} ${details.join(' ')}`.trimEnd());
    if (this.lines.length > 2 * LINES_MAX) this.lines.splice(0, LINES_MAX);
  }

  /** 64 bits as 16 hex digits. */
  get hash(): string {
    const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, '0');
    return hex(this.first) + hex(this.second);
  }

  /** The newest lines, oldest first. */
  tail(count: number = LINES_MAX): readonly string[] {
    return this.lines.slice(-count);
  }

  private fold(value: number): void {
    this.bits[0] = value;
    this.mix(this.words[0]);
    this.mix(this.words[1]);
  }

  private foldText(text: string): void {
    for (let i = 0; i < text.length; i++) this.mix(text.charCodeAt(i));
  }

  private mix(word: number): void {
    this.first = Math.imul(this.first ^ word, 0x01000193);
    this.second = Math.imul((this.second << 13) | (this.second >>> 19), 5) + (word ^ this.first);
  }
}
