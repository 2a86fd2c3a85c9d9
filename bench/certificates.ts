/** Certificates for the three hosts of a run over mutual TLS: an authority and one identity, good on the loopback address for a day. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Authority } from '../packages/drakkar/test/certificates.ts';

export interface CertificateFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export async function makeCertificates(dir: string): Promise<CertificateFiles> {
  mkdirSync(dir, { recursive: true });
  const files = { ca: join(dir, 'ca.pem'), cert: join(dir, 'cert.pem'), key: join(dir, 'key.pem') };
  const authority = await Authority.make('bench');
  const issued = await authority.issue({ ip: ['127.0.0.1'], uri: ['drakkar://raft/1'] });
  writeFileSync(files.ca, authority.ca);
  writeFileSync(files.cert, issued.cert);
  writeFileSync(files.key, issued.key, { mode: 0o600 });
  return files;
}
