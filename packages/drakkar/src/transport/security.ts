/**
 * A host's keys and certificates: read through the env, checked, made ready for the network, and read again when they change. Who they let
 * in is said in `identity.ts`.
 */
import { DrakkarError } from '../errors.ts';
import type { Certificate, Env, Security, SecurityMaterial, Timer } from '../env/env.ts';
import {
  complaintAboutIdentity,
  complaintAboutRole,
  complaintAboutTarget,
  describeComplaint,
  roleOf,
  type CertificateComplaint,
} from './identity.ts';
import { CONNECTION_MAX_AGE_MS, SECURITY_FILE_MAX_BYTES, TLS_RELOAD_INTERVAL_MS } from './limits.ts';
import type { HostIdentity } from './transport.ts';

/** PEM text, or the path of a file with it. */
export interface TlsFiles {
  /** Certificates of the authorities that sign hosts' certificates. Use one of your own, that signs nothing else where you can. */
  readonly ca: string;
  /** This host's certificate, with what leads from it to one of the authorities. */
  readonly cert: string;
  /** Its private key, without a passphrase. */
  readonly key: string;
  /** Lists of revoked certificates, one of every authority. */
  readonly crl?: string;
}

export interface TlsOptions extends TlsFiles {
  /**
   * URIs; a certificate must have one of them among its subject alternative names to speak Raft. Default
   * `['drakkar://raft/<deploymentId>']`.
   */
  readonly roles?: readonly string[];
  /** Connections are replaced, without a gap, before they are that old, and ended not long after, in milliseconds. Default one hour. */
  readonly connectionMaxAgeMs?: number;
  /** Files are looked at that often, and what changed is used for new connections; 0 for never. Milliseconds, default 60,000. */
  readonly reloadIntervalMs?: number;
}

export interface ReloadTlsOptions extends Partial<TlsFiles> {
  /** End every connection, so that hosts whose certificates are no longer good are out at once. Default false. */
  readonly disconnect?: boolean;
}

const NAMES = ['ca', 'cert', 'key', 'crl'] as const;

export class TransportSecurity {
  readonly roles: readonly string[];
  readonly connectionMaxAgeMs: number;
  /** What handshakes use now. */
  current: Security;
  /** One of each engine's transport. */
  private readonly listeners = new Set<(disconnect: boolean) => void>();
  private readonly env: Env;
  private readonly intervalMs: number;
  private files: TlsFiles;
  private material: SecurityMaterial;
  private own: { readonly names: readonly string[]; readonly identity: HostIdentity } | undefined;
  private timer: Timer | undefined;
  private isClosed = false;
  private lastComplaint = '';

  private constructor(
    env: Env,
    options: TlsOptions,
    deploymentId: number,
    files: TlsFiles,
    material: SecurityMaterial,
  ) {
    this.env = env;
    this.files = files;
    this.roles = options.roles ?? [roleOf(deploymentId)];
    this.connectionMaxAgeMs = options.connectionMaxAgeMs ?? CONNECTION_MAX_AGE_MS;
    this.intervalMs = options.reloadIntervalMs ?? TLS_RELOAD_INTERVAL_MS;
    this.material = material;
    this.current = prepare(env, material, files);
  }

  /** Throws `ERR_TLS_CONFIG`. */
  static async open(env: Env, options: TlsOptions, deploymentId: number): Promise<TransportSecurity> {
    const { ca, cert, key, crl } = options;
    const files = crl === undefined ? { ca, cert, key } : { ca, cert, key, crl };
    return new TransportSecurity(env, options, deploymentId, files, await readMaterial(env, files));
  }

  /**
   * The host knows who it is: its certificate must say the same. `names` is what peers may know it by, its address or its host id. Throws
   * `ERR_TLS_CONFIG`. From now on files are watched.
   */
  start(names: readonly string[], identity: HostIdentity): void {
    this.own = { names, identity };
    this.assertOwn(this.current.certificate, this.files);
    this.watch();
  }

  complaintAboutRole(certificate: Certificate | undefined): CertificateComplaint | undefined {
    return complaintAboutRole(certificate, this.roles);
  }

  complaintAboutTarget(certificate: Certificate | undefined, target: string): CertificateComplaint | undefined {
    return complaintAboutTarget(certificate, this.roles, target);
  }

  /** What keeps the holder of `certificate` from being who it claims to be. */
  complaintAbout(certificate: Certificate | undefined, claimed: HostIdentity): CertificateComplaint | undefined {
    return complaintAboutIdentity(certificate, this.roles, claimed);
  }

  /**
   * Reads everything again, with `change` in place of what it names. New connections use it from then on; those that are up are replaced
   * soon, or ended where that is asked. What does not hold is refused with `ERR_TLS_CONFIG`, and nothing changes.
   */
  async reload(change: ReloadTlsOptions = {}): Promise<void> {
    const { disconnect = false, ...named } = change;
    const files = { ...this.files, ...named };
    const material = await readMaterial(this.env, files);
    const next = prepare(this.env, material, files);
    this.assertOwn(next.certificate, files);
    this.files = files;
    this.material = material;
    this.current = next;
    this.lastComplaint = '';
    this.env.logger.info({ fingerprint: next.certificate.fingerprint }, 'certificates were loaded');
    for (const listener of this.listeners) listener(disconnect);
  }

  /** For a transport: runs when `current` is another. Gives what ends that. */
  onChange(listener: (disconnect: boolean) => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  private assertOwn(own: Certificate, files: TlsFiles): void {
    if (this.own === undefined) return;
    const { names, identity } = this.own;
    const complaint =
      names.map((name) => this.complaintAboutTarget(own, name)).find((found) => found !== undefined) ??
      this.complaintAbout(own, identity);
    if (complaint === undefined) return;
    throw configError(files, ['cert'], `the own certificate: ${describeComplaint(complaint, this.roles, identity)}`);
  }

  private watch(): void {
    const hasFiles = NAMES.some((name) => this.files[name] !== undefined && !isPem(this.files[name]));
    if (this.intervalMs === 0 || !hasFiles || this.isClosed) return;
    this.timer = this.env.scheduler.after(this.intervalMs, () => {
      void this.look().then(() => this.watch());
    });
  }

  /** A certificate that was replaced before its key was is no pair: it is looked at again the next time. */
  private async look(): Promise<void> {
    try {
      const seen = await readMaterial(this.env, this.files);
      if (!this.isClosed && NAMES.some((name) => seen[name] !== this.material[name])) await this.reload();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      if (why === this.lastComplaint) return;
      this.lastComplaint = why;
      this.env.logger.warn({ why }, 'certificates have changed and cannot be used; the ones before stay in use');
    }
  }

  close(): void {
    this.isClosed = true;
    this.timer?.cancel();
  }
}

function isPem(text: string): boolean {
  return text.includes('-----BEGIN ');
}

async function readMaterial(env: Env, files: TlsFiles): Promise<SecurityMaterial> {
  const read = (name: (typeof NAMES)[number], text: string): Promise<string> =>
    isPem(text) ? Promise.resolve(text) : readText(env, name, text);
  return {
    ca: await read('ca', files.ca),
    cert: await read('cert', files.cert),
    key: await read('key', files.key),
    crl: files.crl === undefined ? undefined : await read('crl', files.crl),
  };
}

async function readText(env: Env, name: string, path: string): Promise<string> {
  try {
    const stat = await env.fs.stat(path);
    if (stat === undefined) throw new Error('there is no such file');
    if (stat.sizeBytes > SECURITY_FILE_MAX_BYTES) throw new Error(`it is larger than ${SECURITY_FILE_MAX_BYTES} bytes`);
    if (name === 'key' && (stat.mode & 0o007) !== 0)
      env.logger.warn({ path }, 'everybody on this machine may read the private key; chmod 600 it');
    const file = await env.fs.open(path, 'read');
    try {
      const bytes = new Uint8Array(stat.sizeBytes);
      const length = await file.read(bytes, 0, bytes.length, 0);
      return new TextDecoder().decode(bytes.subarray(0, length));
    } finally {
      await file.close();
    }
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new DrakkarError('ERR_TLS_CONFIG', `tls.${name} is ${path}, which cannot be read: ${why}`, { cause });
  }
}

function prepare(env: Env, material: SecurityMaterial, files: TlsFiles): Security {
  try {
    return env.network.prepare(material);
  } catch (cause) {
    throw configError(files, NAMES, cause instanceof Error ? cause.message : String(cause), cause);
  }
}

function configError(
  files: TlsFiles,
  names: readonly (typeof NAMES)[number][],
  why: string,
  cause?: unknown,
): DrakkarError {
  const places = names.flatMap((name) => {
    const text = files[name];
    return text === undefined ? [] : [`${name}: ${isPem(text) ? 'given as PEM' : text}`];
  });
  return new DrakkarError('ERR_TLS_CONFIG', `tls (${places.join(', ')}): ${why}`, { cause });
}
