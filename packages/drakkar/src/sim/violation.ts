/** What a run can find. */

export type ViolationKind = 'safety' | 'liveness' | 'crash';

/** Thrown by a check; ends the run. */
export class Violation extends Error {
  readonly kind: ViolationKind;
  /** Name of the invariant. */
  readonly rule: string;

  constructor(kind: ViolationKind, rule: string, message: string) {
    super(`${rule}: ${message}`);
    this.name = 'Violation';
    this.kind = kind;
    this.rule = rule;
  }
}

export function holds(condition: boolean, rule: string, message: () => string): asserts condition {
  if (!condition) throw new Violation('safety', rule, message());
}

/** With its causes. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? '' : ` ← ${describe(error.cause)}`;
  const frames = (error.stack ?? '').split('\n').slice(1, 4).join(' ').replaceAll(/\s+/g, ' ');
  return `${error.name}: ${error.message} (${frames.replaceAll(/file:\S*\/src\//g, 'src/')})${cause}`;
}
