/**
 * Certificates of this machine: checked when they are given, so that a mistake is told at the start and not by every handshake, and read
 * into plain values. Whether a peer's certificate is trusted is OpenSSL's to say, not this file's.
 */
import { X509Certificate, constants, createPrivateKey } from 'node:crypto';
import { isIPv6 } from 'node:net';
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls';
import type { Certificate, Security, SecurityMaterial } from '../env.ts';

const BLOCK = /-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----[\s\S]+?-----END (?:TRUSTED |X509 )?CERTIFICATE-----/g;
/** One name: a value that could be taken for several names stands in quotes, as JSON. */
const ALT_NAME = /^([A-Za-z ]+):("(?:[^"\\]|\\.)*"|[^",]*)(?:, |$)/;
/** Extended key usages: a host dials and is dialled. */
const USAGES = { '1.3.6.1.5.5.7.3.1': 'TLS server', '1.3.6.1.5.5.7.3.2': 'TLS client' } as const;

export class NodeSecurity implements Security {
  readonly certificate: Certificate;
  readonly options: SecureContextOptions;
  readonly context: SecureContext;

  constructor(material: SecurityMaterial, certificate: Certificate) {
    this.certificate = certificate;
    this.options = {
      ca: material.ca,
      cert: material.cert,
      key: material.key,
      ...(material.crl === undefined ? {} : { crl: material.crl }),
      minVersion: 'TLSv1.3',
      maxVersion: 'TLSv1.3',
      // A resumed session would skip the certificate, and with it revocation and rotation.
      secureOptions: constants.SSL_OP_NO_TICKET,
    };
    this.context = createSecureContext(this.options);
  }
}

export function prepare(material: SecurityMaterial): NodeSecurity {
  const authorities = parse('ca', material.ca);
  const [own, ...others] = parse('cert', material.cert);
  let key: ReturnType<typeof createPrivateKey>;
  try {
    key = createPrivateKey(material.key);
  } catch (cause) {
    throw new Error(`key holds no private key as PEM without a passphrase (${messageOf(cause)})`, { cause });
  }
  if (!own.checkPrivateKey(key)) throw new Error('the key does not belong to the certificate');
  if (own.ca) throw new Error('the certificate is one of an authority; a host needs one of its own');
  const now = Date.now();
  if (own.validToDate.getTime() <= now) throw new Error(`the certificate expired at ${own.validToDate.toISOString()}`);
  if (own.validFromDate.getTime() > now)
    throw new Error(`the certificate is valid only from ${own.validFromDate.toISOString()}`);
  const usages: readonly string[] | undefined = own.keyUsage;
  if (usages !== undefined) {
    for (const [oid, name] of Object.entries(USAGES)) {
      if (!usages.includes(oid))
        throw new Error(`the certificate's extended key usage leaves out ${name}; a host needs both server and client`);
    }
  }
  if (!leadsTo(own, others, authorities))
    throw new Error('the certificate is signed by none of the authorities in ca, nor by any that they signed');
  try {
    // What was checked is what is used: OpenSSL passes over blocks that have no line of their own.
    const ca = authorities.join('\n');
    const cert = [own, ...others].join('\n');
    return new NodeSecurity({ ...material, ca, cert }, readCertificate(own));
  } catch (cause) {
    throw new Error(`ca, cert, key and crl do not go together (${messageOf(cause)})`, { cause });
  }
}

function parse(name: 'ca' | 'cert', pem: string): [X509Certificate, ...X509Certificate[]] {
  const [first, ...rest] = (pem.match(BLOCK) ?? []).map((block) => {
    try {
      return new X509Certificate(block);
    } catch (cause) {
      throw new Error(`${name} holds something that is no certificate (${messageOf(cause)})`, { cause });
    }
  });
  if (first === undefined) throw new Error(`${name} holds no certificate as PEM`);
  return [first, ...rest];
}

function leadsTo(
  own: X509Certificate,
  between: readonly X509Certificate[],
  authorities: readonly X509Certificate[],
): boolean {
  let current = own;
  for (let steps = 0; steps <= between.length; steps++) {
    const signed = (by: X509Certificate): boolean => current.checkIssued(by) && current.verify(by.publicKey);
    if (authorities.some(signed)) return true;
    const next = between.find(signed);
    if (next === undefined) return false;
    current = next;
  }
  return false;
}

export function readCertificate(certificate: X509Certificate): Certificate {
  const dnsNames: string[] = [];
  const ipAddresses: string[] = [];
  const uris: string[] = [];
  for (const [kind, value] of splitAltNames(certificate.subjectAltName ?? '')) {
    if (kind === 'DNS') dnsNames.push(value.toLowerCase());
    else if (kind === 'IP Address') ipAddresses.push(shortest(value));
    else if (kind === 'URI') uris.push(value);
  }
  return {
    dnsNames,
    ipAddresses,
    uris,
    fingerprint: certificate.fingerprint256.replaceAll(':', '').toLowerCase(),
    validForMs: certificate.validToDate.getTime() - Date.now(),
  };
}

/** Gives nothing at all for a text that is not of Node's making: no name is better than a wrong one. */
export function splitAltNames(text: string): [kind: string, value: string][] {
  const names: [string, string][] = [];
  for (let rest = text; rest !== ''; ) {
    const match = ALT_NAME.exec(rest);
    if (match === null) return [];
    const [whole, kind, value] = match;
    names.push([kind, value.startsWith('"') ? (JSON.parse(value) as string) : value]);
    rest = rest.slice(whole.length);
  }
  return names;
}

function shortest(address: string): string {
  return isIPv6(address) ? new URL(`http://[${address}]`).hostname.slice(1, -1) : address;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
