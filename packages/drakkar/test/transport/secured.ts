/** Two and more machines in memory whose transports know one another by simulated certificates. */
import { SimulatedAuthority, type CertificateRequest } from 'drakkar/testing';
import type { Env } from '../../src/env/env.ts';
import { encodeHello, type Purpose } from '../../src/transport/hello.ts';
import { hostUri } from '../../src/transport/identity.ts';
import { TransportSecurity, type TlsOptions } from '../../src/transport/security.ts';
import { createTcpTransport } from '../../src/transport/tcp.ts';
import type { HostIdentity, TransportContext } from '../../src/transport/transport.ts';
import { TestHost, TestPair, identityOf } from './compliance.ts';

/** Not the default, so that hosts of two deployments may both have it. */
export const ROLE = 'test://raft';

interface Secured {
  readonly fields?: Partial<HostIdentity>;
  readonly context?: Partial<TransportContext>;
  readonly request?: CertificateRequest;
  readonly authority?: SimulatedAuthority;
  readonly tls?: Partial<TlsOptions>;
}

export class SecuredPair extends TestPair {
  readonly authority = new SimulatedAuthority(this.machines.world, 'authority');
  readonly securityOf = new Map<TestHost, TransportSecurity>();

  constructor() {
    super(createTcpTransport);
  }

  /** What an honest operator asks for. */
  requestOf(identity: HostIdentity): CertificateRequest {
    const [name] = identity.raftAddress.split(':');
    return { dnsNames: [name], uris: [ROLE, hostUri(identity.hostId)] };
  }

  override host(
    name: string,
    fields: Partial<HostIdentity> = {},
    context: Partial<TransportContext> = {},
  ): Promise<TestHost> {
    return this.securedHost(name, { fields, context });
  }

  async securedHost(name: string, more: Secured = {}): Promise<TestHost> {
    return this.securedEngine(this.machines.add(name).boot(), name, 0, more);
  }

  /** All engines of a host have the certificate of their host. */
  override async engines(name: string): Promise<[TestHost, TestHost]> {
    const env = this.machines.add(name).boot();
    return [await this.securedEngine(env, name, 0), await this.securedEngine(env, name, 1)];
  }

  private async securedEngine(env: Env, name: string, engine: number, more: Secured = {}): Promise<TestHost> {
    const identity = identityOf(name, more.fields);
    const authority = more.authority ?? this.authority;
    const issued = authority.issue(more.request ?? this.requestOf(identity));
    const options = { ca: authority.ca, ...issued, roles: [ROLE], ...more.tls };
    const security = await TransportSecurity.open(env, options, identity.deploymentId);
    const host = new TestHost((context) => createTcpTransport({ ...context, security }), env, identity, {
      engine,
      ...(engine === 0 ? {} : { listenAddress: `${name}:0` }),
      ...more.context,
    });
    if (more.request === undefined) security.start([identity.raftAddress], identity);
    this.securityOf.set(host, security);
    return this.begin(host);
  }
}

export function helloOf(identity: HostIdentity, target: string, purpose: Purpose = 1): Uint8Array {
  const slab = encodeHello({ purpose, status: 0, identity, target, explanation: '' });
  return slab.u8.slice(0, slab.usedBytes);
}
