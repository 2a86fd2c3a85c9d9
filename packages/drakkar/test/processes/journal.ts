/** The journal as a module that threads load. */
import { Journal } from '../support.ts';

export default function createJournal(): Journal {
  return new Journal();
}

/** For a thread that dies when it is told to. */
export class Mortal extends Journal {
  private readonly lastWord: string;

  constructor(lastWord: string) {
    super();
    this.lastWord = lastWord;
  }

  override lookup(query: string): unknown {
    if (query === this.lastWord) setImmediate(() => process.exit(7));
    return super.lookup(query);
  }
}

export const createMortal = (_shardId: number, _replicaId: number, args: unknown): Mortal =>
  new Mortal((args as { lastWord: string }).lastWord);
