/** What a compliance suite is: named cases, to be run by any test runner; a case that does not hold throws. */

export interface ComplianceCase {
  readonly name: string;
  readonly run: () => Promise<void>;
}

/** A plug-in breaks its contract. */
export class ComplianceError extends Error {
  override name = 'ComplianceError';
}

export function expect(condition: boolean, message: string): asserts condition {
  if (!condition) throw new ComplianceError(message);
}

export function expectEqual(actual: unknown, expected: unknown, what: string): void {
  const [got, wanted] = [JSON.stringify(actual), JSON.stringify(expected)];
  expect(got === wanted, `${what}: expected ${wanted}, got ${got}`);
}

export function expectCode(error: unknown, code: string, what: string): void {
  const got = (error as { code?: unknown } | undefined)?.code;
  expect(got === code, `${what}: expected ${code}, got ${String(got ?? error)}`);
}
