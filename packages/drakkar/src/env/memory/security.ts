/**
 * Certificates of the network in memory: text that looks like PEM and names its authority, with no cryptography in it. Handshakes check what
 * TLS checks (authority, time, revocation, possession of the key), so that all that is built on them can be tested and simulated.
 */
import type { Certificate, Security, SecurityMaterial } from '../env.ts';
import type { World } from './world.ts';

const BLOCK = /-----BEGIN SIMULATED ([A-Z]+)-----\n(.*)\n-----END SIMULATED \1-----/g;

interface Written {
  readonly serial: string;
  readonly issuer: string;
  readonly dnsNames: readonly string[];
  readonly ipAddresses: readonly string[];
  readonly uris: readonly string[];
  /** Virtual time. */
  readonly validToMs: number;
}

export interface CertificateRequest {
  readonly dnsNames?: readonly string[];
  readonly ipAddresses?: readonly string[];
  readonly uris?: readonly string[];
  /** Virtual milliseconds from now. Default: for ever. */
  readonly validForMs?: number;
}

const write = (kind: string, value: unknown): string =>
  `-----BEGIN SIMULATED ${kind}-----\n${JSON.stringify(value)}\n-----END SIMULATED ${kind}-----\n`;

function read<T>(name: string, kind: string, text: string): T[] {
  const found = [...text.matchAll(BLOCK)].filter(([, is]) => is === kind).map(([, , json]) => JSON.parse(json) as T);
  if (found.length === 0) throw new Error(`${name} holds no simulated ${kind.toLowerCase()}`);
  return found;
}

/** Signs simulated certificates. */
export class SimulatedAuthority {
  /** Its own certificate, for `tls.ca`. */
  readonly ca: string;
  private readonly world: World;
  private readonly name: string;
  private readonly revoked: string[] = [];
  private serials = 0;

  constructor(world: World, name: string) {
    this.world = world;
    this.name = name;
    this.ca = write('AUTHORITY', name);
  }

  issue(request: CertificateRequest): { readonly cert: string; readonly key: string } {
    const serial = `${this.name}-${++this.serials}`;
    const { dnsNames = [], ipAddresses = [], uris = [], validForMs } = request;
    const validToMs = validForMs === undefined ? Number.MAX_SAFE_INTEGER : this.world.nowMs() + validForMs;
    const written: Written = { serial, issuer: this.name, dnsNames, ipAddresses, uris, validToMs };
    return { cert: write('CERTIFICATE', written), key: write('KEY', serial) };
  }

  /** Gives its list of all that was revoked, for `tls.crl`. */
  revoke(...certificates: readonly string[]): string {
    for (const cert of certificates) this.revoked.push(read<Written>('cert', 'CERTIFICATE', cert)[0].serial);
    return write('CRL', this.revoked);
  }
}

export class MemorySecurity implements Security {
  private readonly written: Written;
  private readonly authorities: readonly string[];
  private readonly revoked: readonly string[];
  private readonly world: World;

  constructor(world: World, material: SecurityMaterial) {
    this.world = world;
    this.authorities = read<string>('ca', 'AUTHORITY', material.ca);
    this.written = read<Written>('cert', 'CERTIFICATE', material.cert)[0];
    this.revoked = material.crl === undefined ? [] : read<string[]>('crl', 'CRL', material.crl).flat();
    const [serial] = read<string>('key', 'KEY', material.key);
    if (serial !== this.written.serial) throw new Error('the key does not belong to the certificate');
    if (this.written.validToMs <= world.nowMs()) throw new Error('the certificate has expired');
    if (!this.authorities.includes(this.written.issuer))
      throw new Error('the certificate is signed by none of the authorities in ca');
  }

  get certificate(): Certificate {
    const { dnsNames, ipAddresses, uris, serial, validToMs } = this.written;
    return { dnsNames, ipAddresses, uris, fingerprint: serial, validForMs: validToMs - this.world.nowMs() };
  }

  /** Why the other end is not believed; undefined when it is. */
  complaintAbout(other: MemorySecurity): string | undefined {
    const { issuer, serial, validToMs } = other.written;
    if (!this.authorities.includes(issuer)) return 'unknown authority';
    if (validToMs <= this.world.nowMs()) return 'certificate has expired';
    return this.revoked.includes(serial) ? 'certificate was revoked' : undefined;
  }
}

export function ours(security: Security | undefined): MemorySecurity | undefined {
  if (security === undefined || security instanceof MemorySecurity) return security;
  throw new TypeError('this security was prepared by another network');
}
