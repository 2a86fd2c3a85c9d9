/**
 * A network namespace for each host, joined by a bridge, with rules that drop what the suite wants dropped between hosts. Clients ask from
 * the bridge and are never hindered. Only for a process that has mount and network namespaces of its own: with it, all of
 * this is gone.
 */
import { HOST_IDS } from '../cluster.ts';
import { must } from './probes.ts';

const NAMESPACES = '/run/netns';
const NETWORK = '10.77.0';
const BRIDGE_ADDRESS = `${NETWORK}.254/24`;

export const NETWORK_COMMANDS = ['unshare', 'nsenter', 'mount', 'ip', 'nft'];

/** What the suite needs from the kernel, on the smallest scale. */
export const NETWORK_PROBE = `
mount -t tmpfs none /run
mkdir ${NAMESPACES}
ip netns add probe
ip link add name bridge0 type bridge
ip link add name end0 type veth peer name end1
nsenter --net=${NAMESPACES}/probe nft -f - <<'RULES'
table inet probe {
  chain inbound {
    type filter hook input priority 0;
    numgen random mod 100 < 10 counter drop
    meta l4proto tcp counter reject with tcp reset
  }
}
RULES
`;

export function addressOf(id: number): string {
  return `${NETWORK}.${id}`;
}

export function launcherOf(id: number): readonly string[] {
  return ['nsenter', `--net=${NAMESPACES}/host-${id}`];
}

export function buildNetworks(): void {
  must('mount', ['-t', 'tmpfs', 'none', '/run']);
  must('mkdir', [NAMESPACES]);
  must('ip', ['link', 'set', 'lo', 'up']);
  must('ip', ['link', 'add', 'name', 'bridge0', 'type', 'bridge']);
  must('ip', ['address', 'add', BRIDGE_ADDRESS, 'dev', 'bridge0']);
  must('ip', ['link', 'set', 'bridge0', 'up']);
  for (const id of HOST_IDS) {
    const name = `host-${id}`;
    must('ip', ['netns', 'add', name]);
    must('ip', ['link', 'add', 'name', name, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name]);
    must('ip', ['link', 'set', name, 'master', 'bridge0', 'up']);
    must('ip', ['-n', name, 'link', 'set', 'lo', 'up']);
    must('ip', ['-n', name, 'address', 'add', `${addressOf(id)}/24`, 'dev', 'eth0']);
    must('ip', ['-n', name, 'link', 'set', 'eth0', 'up']);
  }
}

/** What a host does with packets from (`in`) or to (`out`) another host. */
export interface Rule {
  readonly at: number;
  readonly direction: 'in' | 'out';
  readonly peer: number;
  /** As nft says it: `drop`, `reject with tcp reset`, or with a condition before. */
  readonly verdict: string;
  readonly condition?: string;
}

/** Replaces all rules of all hosts; none: whole again. */
export function setRules(rules: readonly Rule[]): void {
  for (const id of HOST_IDS) {
    const chain = (direction: 'in' | 'out', hook: string): string => {
      const lines = rules
        .filter((rule) => rule.at === id && rule.direction === direction)
        .map(({ peer, condition = '', verdict }) => {
          return `ip ${direction === 'in' ? 'saddr' : 'daddr'} ${addressOf(peer)} ${condition} counter ${verdict}`;
        });
      return [`chain ${direction}bound {`, `type filter hook ${hook} priority 0;`, ...lines, '}'].join('\n');
    };
    const table = ['table inet chaos {', chain('in', 'input'), chain('out', 'output'), '}'];
    must(...inHost(id, ['nft', '-f', '-']), `flush ruleset\n${table.join('\n')}\n`);
  }
}

/** Packets that met a rule since it was set. */
export function countHits(): number {
  let hits = 0;
  for (const id of HOST_IDS) {
    for (const [, packets] of must(...inHost(id, ['nft', 'list', 'ruleset'])).matchAll(/packets (\d+)/g)) {
      hits += Number(packets);
    }
  }
  return hits;
}

function inHost(id: number, command: readonly string[]): [program: string, args: readonly string[]] {
  const [program, ...args] = launcherOf(id);
  return [program, [...args, ...command]];
}
