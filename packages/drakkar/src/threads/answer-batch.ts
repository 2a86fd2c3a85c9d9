/**
 * Answers of one turn on their way back: one buffer, a section for each run of answers to one port. Errors stand in a list beside it, each
 * once, since many answers usually fail together.
 *
 *     section   word 0   port    word 1   count
 *     answer    word 0   sequence    word 1   kind    then by kind: u32 | f64 low, high | length, bytes, padded | place in the list
 */
import type { DrakkarError } from '../errors.ts';
import type { Result } from '../rsm/state-machine.ts';

const SECTION_WORDS = 2;
const FIRST_WORDS = 1024;

const KIND_U32 = 0;
const KIND_F64 = 1;
const KIND_BYTES = 2;
const KIND_ERROR = 3;

const f64 = new Float64Array(1);
const f64Words = new Uint32Array(f64.buffer);

export class AnswerBatch {
  private u32 = new Uint32Array(FIRST_WORDS);
  private u8 = new Uint8Array(this.u32.buffer);
  private endWord = 0;
  private section = 0;
  private port = 0;
  readonly errors: DrakkarError[] = [];

  get isEmpty(): boolean {
    return this.endWord === 0;
  }

  add(port: number, sequence: number, error: DrakkarError | null, result: Result): void {
    const isBytes = error === null && typeof result !== 'number';
    this.reserve(SECTION_WORDS + 4 + (isBytes ? (result.length + 3) >>> 2 : 0));
    if (this.endWord === 0 || port !== this.port) this.openSection(port);
    const { u32 } = this;
    u32[this.section + 1]++;
    let word = this.endWord;
    u32[word] = sequence;
    if (error !== null) {
      u32[word + 1] = KIND_ERROR;
      u32[word + 2] = this.placeOf(error);
      word += 3;
    } else if (typeof result !== 'number') {
      u32[word + 1] = KIND_BYTES;
      u32[word + 2] = result.length;
      this.u8.set(result, (word + 3) << 2);
      word += 3 + ((result.length + 3) >>> 2);
    } else if (result >>> 0 === result && !Object.is(result, -0)) {
      u32[word + 1] = KIND_U32;
      u32[word + 2] = result;
      word += 3;
    } else {
      f64[0] = result;
      u32[word + 1] = KIND_F64;
      u32[word + 2] = f64Words[0];
      u32[word + 3] = f64Words[1];
      word += 4;
    }
    this.endWord = word;
  }

  private openSection(port: number): void {
    this.section = this.endWord;
    this.port = port;
    this.u32[this.section] = port;
    this.u32[this.section + 1] = 0;
    this.endWord += SECTION_WORDS;
  }

  private placeOf(error: DrakkarError): number {
    const last = this.errors.length - 1;
    return last >= 0 && this.errors[last] === error ? last : this.errors.push(error) - 1;
  }

  private reserve(words: number): void {
    const needed = this.endWord + words;
    if (needed <= this.u32.length) return;
    let size = this.u32.length * 2;
    while (size < needed) size *= 2;
    const grown = new Uint32Array(size);
    grown.set(this.u32.subarray(0, this.endWord));
    this.u32 = grown;
    this.u8 = new Uint8Array(grown.buffer);
  }

  /** Gives what was added, and begins anew. */
  take(): { buffer: ArrayBuffer; errors: DrakkarError[] } {
    const taken = { buffer: this.u32.buffer.slice(0, this.endWord << 2), errors: this.errors.splice(0) };
    this.endWord = 0;
    return taken;
  }
}

export interface AnswerVisitor {
  onPort(port: number): void;
  onResult(sequence: number, result: Result): void;
  /** `place` in the list of errors. */
  onError(sequence: number, place: number): void;
}

export function visitAnswers(buffer: ArrayBuffer, visitor: AnswerVisitor): void {
  const u32 = new Uint32Array(buffer);
  let word = 0;
  while (word < u32.length) {
    visitor.onPort(u32[word]);
    let left = u32[word + 1];
    for (word += SECTION_WORDS; left > 0; left--) {
      const sequence = u32[word];
      const kind = u32[word + 1];
      if (kind === KIND_U32) visitor.onResult(sequence, u32[word + 2]);
      else if (kind === KIND_ERROR) visitor.onError(sequence, u32[word + 2]);
      else if (kind === KIND_BYTES) {
        const length = u32[word + 2];
        visitor.onResult(sequence, new Uint8Array(buffer.slice((word + 3) << 2, ((word + 3) << 2) + length)));
        word += (length + 3) >>> 2;
      } else {
        f64Words[0] = u32[word + 2];
        f64Words[1] = u32[word + 3];
        visitor.onResult(sequence, f64[0]);
        word++;
      }
      word += 3;
    }
  }
}
