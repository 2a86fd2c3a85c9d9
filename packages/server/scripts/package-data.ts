/** The demo's input: what every package under node_modules says of itself. */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

export interface PackageRecord {
  /** `<name>@<version>` */
  readonly key: string;
  /** JSON of name, version, licence and dependencies. */
  readonly value: string;
}

export function readPackages(nodeModules: string): PackageRecord[] {
  const records = new Map<string, string>();
  const visit = (dir: string): void => {
    for (const entry of readdirSync(dir, { withFileTypes: true })) {
      if (!entry.isDirectory() || entry.name.startsWith('.')) continue;
      const path = join(dir, entry.name);
      if (entry.name.startsWith('@')) {
        visit(path);
        continue;
      }
      readPackage(join(path, 'package.json'), records);
      const nested = join(path, 'node_modules');
      if (existsSync(nested)) visit(nested);
    }
  };
  visit(nodeModules);
  return [...records].map(([key, value]) => ({ key, value }));
}

function readPackage(path: string, records: Map<string, string>): void {
  if (!existsSync(path)) return;
  const { name, version, license, dependencies } = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  if (typeof name !== 'string' || typeof version !== 'string') return;
  records.set(`${name}@${version}`, JSON.stringify({ name, version, license, dependencies }));
}
