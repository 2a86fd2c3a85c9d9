/**
 * The judgement after the harm: every acknowledged ledger entry is looked for through every host, every register is read once more
 * through every host, the digests are compared, and the whole history goes through the linearizability checker.
 */
import { checkLinearizability, keyValueModel } from 'drakkar/sim';
import type { Cluster, ClusterHost } from '../cluster.ts';
import { send } from '../http-client.ts';
import { pause, type SuiteReport } from './suite.ts';
import { digestsAgree } from './view.ts';
import type { Workload } from './workload.ts';

const PAGE_KEYS = 10_000;
const PAGE_ATTEMPTS = 20;
const PAGE_PAUSE_MS = 100;
const READERS = 8;
const READ_ATTEMPTS = 50;
/** Steps of the checker for one key; a history that needs more was recorded badly and counts as a failure. */
const CHECK_STEPS_MAX = 20_000_000;
const LOSSES_TOLD = 5;

export interface Judgement {
  readonly acknowledgedLost: number;
  readonly verdict: SuiteReport['verdict'];
  readonly digestsEqual: boolean;
  readonly shortfalls: string[];
}

/** Call it when all hosts run again and no client asks any more. */
export async function judge(cluster: Cluster, workload: Workload): Promise<Judgement> {
  const shortfalls: string[] = [];
  const lost = new Set<string>();
  for (const host of cluster.hosts) {
    const found = await ledgerOf(host);
    for (const [key, value] of workload.ledger) {
      if (found.get(key) === value) continue;
      lost.add(key);
      if (lost.size <= LOSSES_TOLD) shortfalls.push(`${key}, acknowledged, is ${found.get(key)} on host ${host.id}`);
    }
  }
  if (lost.size > 0) shortfalls.unshift(`${lost.size} acknowledged writes are lost`);
  const silent = await readRegisters(cluster, workload);
  if (silent > 0) shortfalls.push(`${silent} registers were not answered after the harm`);
  const digestsEqual = await digestsAgree(cluster);
  if (!digestsEqual) shortfalls.push('the digests of the replicas differ');
  const { verdict, key, explanation } = checkLinearizability(workload.history.operations(), keyValueModel, {
    maxSteps: CHECK_STEPS_MAX,
  });
  if (verdict !== 'linearizable') shortfalls.push(`linearizability: ${verdict} of ${key}: ${explanation ?? ''}`);
  return { acknowledgedLost: lost.size, verdict, digestsEqual, shortfalls };
}

/** All ledger entries that a host tells, page by page; each shard is read linearizably. */
async function ledgerOf(host: ClusterHost): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (let after: string | undefined = ''; after !== undefined; ) {
    const page = await pageOf(host, after);
    for (const { key, value } of page.entries) found.set(key, value);
    after = page.next;
  }
  return found;
}

interface Page {
  readonly entries: readonly { readonly key: string; readonly value: string }[];
  readonly next?: string;
}

async function pageOf(host: ClusterHost, after: string): Promise<Page> {
  const url = `${host.url}/kv?prefix=ledger/&limit=${PAGE_KEYS}&after=${after}`;
  for (let attempt = 1; ; attempt++) {
    const answer = await send('GET', url).catch((error: Error) => ({ status: 0, body: error.message }));
    if (answer.status === 200) return JSON.parse(answer.body) as Page;
    if (attempt === PAGE_ATTEMPTS) throw new Error(`host ${host.id} does not list: ${answer.body.slice(0, 200)}`);
    await pause(PAGE_PAUSE_MS);
  }
}

/** Reads every register through every host, into the history; gives how many reads were not answered. */
async function readRegisters(cluster: Cluster, workload: Workload): Promise<number> {
  let next = 0;
  let silent = 0;
  const reader = async (): Promise<void> => {
    const process = workload.newProcess();
    while (next < workload.registers.length) {
      const key = workload.registers[next++];
      for (const host of cluster.hosts) {
        if (!(await workload.readBack(process, host, key, READ_ATTEMPTS))) silent++;
      }
    }
  };
  await Promise.all(Array.from({ length: READERS }, reader));
  return silent;
}
