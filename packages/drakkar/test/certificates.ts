/** Certificates for tests, made in memory: authorities, and what they sign. */
import 'reflect-metadata'; // what comes next asks for it
import * as x509 from '@peculiar/x509';
import { webcrypto } from 'node:crypto';

type CryptoKeyPair = webcrypto.CryptoKeyPair;

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const DAY_MS = 86_400_000;

export interface Request {
  readonly dns?: readonly string[];
  readonly ip?: readonly string[];
  readonly uri?: readonly string[];
  /** From now; negative for what has passed. */
  readonly validFromMs?: number;
  readonly validToMs?: number;
  /** Extended key usages. Default: server and client. */
  readonly usages?: readonly ('server' | 'client')[];
  readonly isAuthority?: boolean;
}

export interface Issued {
  readonly cert: string;
  readonly key: string;
}

async function newKeys(): Promise<CryptoKeyPair> {
  return await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
}

async function keyPem(keys: CryptoKeyPair): Promise<string> {
  const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
  return x509.PemConverter.encode(pkcs8, 'PRIVATE KEY');
}

export class Authority {
  readonly ca: string;
  private readonly name: string;
  private readonly keys: CryptoKeyPair;
  private serials = 0;
  private readonly revoked: string[] = [];

  private constructor(name: string, keys: CryptoKeyPair, ca: string) {
    this.name = name;
    this.keys = keys;
    this.ca = ca;
  }

  static async make(name: string): Promise<Authority> {
    const keys = await newKeys();
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      serialNumber: '01',
      name: `CN=${name}`,
      notBefore: new Date(Date.now() - DAY_MS),
      notAfter: new Date(Date.now() + DAY_MS),
      keys,
      signingAlgorithm: ALGORITHM,
      extensions: [
        new x509.BasicConstraintsExtension(true, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      ],
    });
    return new Authority(name, keys, certificate.toString('pem'));
  }

  async issue(request: Request): Promise<Issued> {
    const keys = await newKeys();
    const names: x509.JsonGeneralName[] = [
      ...(request.dns ?? []).map((value) => ({ type: 'dns' as const, value })),
      ...(request.ip ?? []).map((value) => ({ type: 'ip' as const, value })),
      ...(request.uri ?? []).map((value) => ({ type: 'url' as const, value })),
    ];
    const usages = (request.usages ?? ['server', 'client']).map(
      (usage) => x509.ExtendedKeyUsage[usage === 'server' ? 'serverAuth' : 'clientAuth'],
    );
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: (++this.serials + 16).toString(16).padStart(4, '0'),
      subject: 'CN=host',
      issuer: `CN=${this.name}`,
      notBefore: new Date(Date.now() + (request.validFromMs ?? -DAY_MS)),
      notAfter: new Date(Date.now() + (request.validToMs ?? DAY_MS)),
      publicKey: keys.publicKey,
      signingKey: this.keys.privateKey,
      signingAlgorithm: ALGORITHM,
      extensions: [
        new x509.BasicConstraintsExtension(request.isAuthority === true, undefined, true),
        new x509.ExtendedKeyUsageExtension(usages),
        ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names)]),
      ],
    });
    return { cert: certificate.toString('pem'), key: await keyPem(keys) };
  }

  /** The list of all that was revoked, `certs` included. */
  async revoke(...certs: readonly string[]): Promise<string> {
    for (const cert of certs) this.revoked.push(new x509.X509Certificate(cert).serialNumber);
    const list = await x509.X509CrlGenerator.create({
      issuer: `CN=${this.name}`,
      thisUpdate: new Date(Date.now() - DAY_MS),
      nextUpdate: new Date(Date.now() + DAY_MS),
      entries: this.revoked.map((serialNumber) => ({ serialNumber, revocationDate: new Date(Date.now() - DAY_MS) })),
      signingKey: this.keys.privateKey,
      signingAlgorithm: ALGORITHM,
    });
    return x509.PemConverter.encode(list.rawData, 'X509 CRL');
  }
}
