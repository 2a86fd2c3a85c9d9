/**
 * Who may speak: whether a certificate gives its holder the right to be the host that it claims to be. Pure; the handshake has already
 * shown that the certificate is one of an authority's, in its time, not revoked, and that the other end holds its key.
 *
 * The same rules hold for whoever dials and for whoever is dialled, and for our own certificate at the start. Wildcards count for nothing:
 * whoever holds such a certificate could be any of the hosts it covers.
 */
import type { Certificate } from '../env/env.ts';
import { isHostId } from './target.ts';
import type { HostIdentity } from './transport.ts';

/** The role of a host of this deployment, as a URI among a certificate's names. */
export function roleOf(deploymentId: number): string {
  return `drakkar://raft/${deploymentId}`;
}

/** A certificate with such URIs is good for these host ids only, wherever they are. Needed where members are named by host ids. */
const HOST_URI = 'drakkar://host/';

export function hostUri(hostId: string): string {
  return `${HOST_URI}${hostId}`;
}

export type CertificateComplaint =
  | 'certificate-missing'
  | 'certificate-role'
  | 'certificate-address'
  | 'certificate-host';

/** Whether the holder may speak Raft at all, whoever it is. */
export function complaintAboutRole(
  certificate: Certificate | undefined,
  roles: readonly string[],
): CertificateComplaint | undefined {
  if (certificate === undefined) return 'certificate-missing';
  return roles.some((role) => certificate.uris.includes(role)) ? undefined : 'certificate-role';
}

/** Whether the holder may be what `target` means, an address or a host id: asked by who dials, before it says a word. */
export function complaintAboutTarget(
  certificate: Certificate | undefined,
  roles: readonly string[],
  target: string,
): CertificateComplaint | undefined {
  const complaint = complaintAboutRole(certificate, roles);
  if (complaint !== undefined) return complaint;
  if (isHostId(target)) return certificate!.uris.includes(hostUri(target)) ? undefined : 'certificate-host';
  return namesHost(certificate!, target) ? undefined : 'certificate-address';
}

/** Whether the holder may be who it says in its HELLO: it proves its host id, or its address, and is bound to no other host id. */
export function complaintAboutIdentity(
  certificate: Certificate | undefined,
  roles: readonly string[],
  { raftAddress, hostId }: HostIdentity,
): CertificateComplaint | undefined {
  const complaint = complaintAboutRole(certificate, roles);
  if (complaint !== undefined) return complaint;
  if (certificate!.uris.includes(hostUri(hostId))) return undefined;
  if (certificate!.uris.some((uri) => uri.startsWith(HOST_URI))) return 'certificate-host';
  return namesHost(certificate!, raftAddress) ? undefined : 'certificate-address';
}

/**
 * What of `claimed` its certificate proves; the rest is emptied, so that nobody is taken for the member that it names. On a plain connection
 * every claim counts.
 */
export function provenIdentity(certificate: Certificate | undefined, claimed: HostIdentity): HostIdentity {
  if (certificate === undefined) return claimed;
  return {
    ...claimed,
    raftAddress: namesHost(certificate, claimed.raftAddress) ? claimed.raftAddress : '',
    hostId: certificate.uris.includes(hostUri(claimed.hostId)) ? claimed.hostId : '',
  };
}

/** What `complaint` means for a certificate, as the end of a sentence. */
export function describeComplaint(
  complaint: CertificateComplaint,
  roles: readonly string[],
  { raftAddress, hostId }: { readonly raftAddress: string; readonly hostId: string },
): string {
  switch (complaint) {
    case 'certificate-missing':
      return 'there is no certificate';
    case 'certificate-role':
      return `it names none of the roles that may speak Raft as a URI (${roles.join(', ')})`;
    case 'certificate-address':
      return `it does not name the host of ${raftAddress} as DNS name or IP address (wildcards do not count)`;
    case 'certificate-host':
      return `it does not name ${hostUri(hostId)} as a URI`;
  }
}

function namesHost(certificate: Certificate, raftAddress: string): boolean {
  const host = hostOf(raftAddress);
  const isIpAddress = host.includes(':') || /^\d+\.\d+\.\d+\.\d+$/.test(host);
  if (isIpAddress) return certificate.ipAddresses.includes(host);
  return !host.includes('*') && certificate.dnsNames.includes(host);
}

/** The host of `host:port`, written as certificates are read. */
export function hostOf(address: string): string {
  const host = address.slice(0, address.lastIndexOf(':'));
  if (!host.startsWith('[')) return host.toLowerCase();
  return URL.canParse(`http://${host}`) ? new URL(`http://${host}`).hostname.slice(1, -1) : '';
}

/** Whether only this machine can reach it. */
export function isLoopback(address: string): boolean {
  const host = hostOf(address);
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host);
}
