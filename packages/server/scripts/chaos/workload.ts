/**
 * Clients that write, read and compare-and-swap while a suite does harm, and the record of what each asked and was told.
 *
 * Two kinds of keys. Registers are shared by the few clients of a group and go into the history that the checker judges; a group takes a
 * new register after some operations, or after some unknown outcomes, because both make checking dear. Ledger keys are written
 * once: each that was acknowledged must be there for ever.
 *
 * An answer that never came, or that says so, is `info`: the write may be applied now or at any time later. `fail` is only what was
 * certainly not done.
 */
import { Dice, History } from 'drakkar/sim';
import type { Cluster, ClusterHost } from '../cluster.ts';
import { send, type Answer } from '../http-client.ts';
import { pause } from './suite.ts';

const GROUPS = 4;
const CLIENTS_PER_GROUP = 4;
const OPERATIONS_PER_KEY = 200;
const UNKNOWN_PER_KEY = 4;
const PAUSE_MAX_MS = 8;
const LEDGER_SHARE = 0.25;
/** Large values among the small ones, under few keys: only the digests tell of them. */
const BULK_SHARE = 0.01;
const BULK_KEYS = 16;
const BULK_BYTES = [4 * 1024, 256 * 1024] as const;
const GET_SHARE = 0.4;
const PUT_SHARE = 0.75;
const CAS_SHARE = 0.95;
/** The server gives up a little before the client does, so that most answers say what is known. */
const SERVER_TIMEOUT_MS = 1500;
const CLIENT_TIMEOUT_MS = 2500;
const NO_HOST_PAUSE_MS = 20;

export interface WorkloadOptions {
  /** This share of the requests waits this long: they are answered after a pause of the host, not before. */
  readonly patientShare?: number;
  readonly patienceMs?: number;
}

type Call =
  | { readonly f: 'put' | 'cas'; readonly value: unknown; readonly body: string; readonly version?: string }
  | {
      readonly f: 'get' | 'delete';
      readonly value: null;
    };

/** How a request ended. */
type Outcome =
  | { readonly type: 'ok'; readonly value: unknown; readonly etag?: string | undefined }
  | { readonly type: 'fail' | 'info' };

interface Group {
  readonly name: string;
  generation: number;
  operations: number;
  unknown: number;
}

export class Workload {
  readonly history = new History();
  readonly registers: string[] = [];
  /** What was acknowledged for ever: key and value. */
  readonly ledger = new Map<string, string>();
  operations = 0;
  succeeded = 0;
  refused = 0;
  unknown = 0;
  /** Called for every write that is acknowledged, with the host that said so. */
  onAcknowledged: (host: ClusterHost) => void = () => {};
  private readonly cluster: Cluster;
  private readonly dice: Dice;
  private readonly options: WorkloadOptions;
  private running: Promise<unknown> = Promise.resolve();
  private isStopping = false;
  private processes = 0;
  private values = 0;

  constructor(cluster: Cluster, dice: Dice, options: WorkloadOptions = {}) {
    this.cluster = cluster;
    this.dice = dice;
    this.options = options;
  }

  start(): void {
    const clients: Promise<void>[] = [];
    for (let g = 0; g < GROUPS; g++) {
      const group: Group = { name: `register/${g}`, generation: 0, operations: 0, unknown: 0 };
      this.registers.push(keyOf(group));
      for (let c = 0; c < CLIENTS_PER_GROUP; c++) {
        clients.push(
          this.client(group, this.cluster.hosts[c % this.cluster.hosts.length], this.dice.stream(`${g}-${c}`)),
        );
      }
    }
    this.running = Promise.all(clients);
    this.running.catch(() => {}); // told by `stop`
  }

  /** No new requests; waits for those under way. */
  async stop(): Promise<void> {
    this.isStopping = true;
    await this.running;
  }

  /** Asks its own host while that is up: one that hangs must not stop the clients of all. */
  private async client(group: Group, own: ClusterHost, dice: Dice): Promise<void> {
    let process = this.newProcess();
    let seen: { key: string; value: unknown; version: string } | undefined;
    while (!this.isStopping) {
      const up = this.cluster.hosts.filter((host) => host.isUp);
      if (up.length === 0) {
        await pause(NO_HOST_PAUSE_MS);
        continue;
      }
      const host = own.isUp ? own : dice.pick(up);
      if (dice.chance(LEDGER_SHARE)) {
        await this.enterLedger(host, dice);
        continue;
      }
      if (dice.chance(BULK_SHARE)) {
        await this.writeBulk(host, dice);
        continue;
      }
      const key = this.keyFor(group);
      const call = this.nextCall(process, dice, seen?.key === key ? seen : undefined);
      const outcome = await this.recorded(process, host, key, call, dice);
      if (outcome.type === 'info') {
        // Whoever may still be writing never asks again.
        process = this.newProcess();
        group.unknown++;
      } else if (outcome.type === 'ok' && (call.f === 'get' || call.f === 'put')) {
        const { value, etag } = outcome;
        seen = etag === undefined ? undefined : { key, value, version: etag };
      }
      await pause(dice.unit() * PAUSE_MAX_MS);
    }
  }

  newProcess(): number {
    return this.processes++;
  }

  private keyFor(group: Group): string {
    if (group.operations >= OPERATIONS_PER_KEY || group.unknown >= UNKNOWN_PER_KEY) {
      group.generation++;
      group.operations = 0;
      group.unknown = 0;
      this.registers.push(keyOf(group));
    }
    group.operations++;
    return keyOf(group);
  }

  /** Every value that is written is written once only: then a version stands for a value. */
  private nextCall(process: number, dice: Dice, seen: { value: unknown; version: string } | undefined): Call {
    const drawn = dice.unit();
    const body = `${process}.${this.values++}`;
    if (drawn < GET_SHARE) return { f: 'get', value: null };
    if (drawn < PUT_SHARE) return { f: 'put', value: body, body };
    if (drawn >= CAS_SHARE) return { f: 'delete', value: null };
    if (seen === undefined) return { f: 'get', value: null };
    return { f: 'cas', value: { from: seen.value, to: body }, body, version: seen.version };
  }

  private async recorded(process: number, host: ClusterHost, key: string, call: Call, dice: Dice): Promise<Outcome> {
    this.operations++;
    const id = this.history.invoke(process, call.f, key, call.value, performance.now());
    const outcome = await this.request(host, key, call, dice);
    const now = performance.now();
    if (outcome.type === 'ok') {
      this.succeeded++;
      this.history.ok(id, outcome.value, now);
      if (call.f !== 'get') this.onAcknowledged(host);
    } else if (outcome.type === 'fail') {
      this.refused++;
      this.history.fail(id, now);
    } else {
      this.unknown++;
      this.history.info(id, now);
    }
    return outcome;
  }

  private async request(host: ClusterHost, key: string, call: Call, dice: Dice): Promise<Outcome> {
    const method = call.f === 'get' ? 'GET' : call.f === 'delete' ? 'DELETE' : 'PUT';
    const version = 'version' in call ? call.version : undefined;
    const body = 'body' in call ? call.body : undefined;
    const answer = await this.send(method, host, key, dice, body, version).catch((error: Error) => error);
    if (!(answer instanceof Error)) return outcomeOf(call, answer);
    // Nobody listened: not a byte of it was read. A read has no effect, whatever became of it.
    const isRefused = (answer as NodeJS.ErrnoException).code === 'ECONNREFUSED';
    return { type: isRefused || call.f === 'get' ? 'fail' : 'info' };
  }

  private send(
    method: string,
    host: ClusterHost,
    key: string,
    dice: Dice,
    body?: string,
    version?: string,
  ): Promise<Answer> {
    const { patientShare = 0, patienceMs = 0 } = this.options;
    const extraMs = dice.chance(patientShare) ? patienceMs : 0;
    const url = `${host.url}/kv/${key}?timeoutMs=${SERVER_TIMEOUT_MS + extraMs}`;
    const headers = version === undefined ? {} : { 'if-match': version };
    return send(method, url, body, CLIENT_TIMEOUT_MS + extraMs, headers);
  }

  private async enterLedger(host: ClusterHost, dice: Dice): Promise<void> {
    const value = String(this.values++);
    const key = `ledger/${value.padStart(9, '0')}`;
    if (await this.writeUnrecorded(host, key, dice, value)) this.ledger.set(key, value);
  }

  private async writeBulk(host: ClusterHost, dice: Dice): Promise<void> {
    const value = 'x'.repeat(dice.between(...BULK_BYTES));
    await this.writeUnrecorded(host, `bulk/${dice.below(BULK_KEYS)}`, dice, value);
  }

  /** A write that the history does without; true when it was acknowledged. */
  private async writeUnrecorded(host: ClusterHost, key: string, dice: Dice, value: string): Promise<boolean> {
    this.operations++;
    const answer = await this.send('PUT', host, key, dice, value).catch(() => undefined);
    if (answer?.status === 200) {
      this.succeeded++;
      this.onAcknowledged(host);
      return true;
    }
    if (answer !== undefined && isNotApplied(answer)) this.refused++;
    else this.unknown++;
    return false;
  }

  /** Reads a register through `host` after the harm, until it answers; part of the history. */
  async readBack(process: number, host: ClusterHost, key: string, attempts: number): Promise<boolean> {
    for (let attempt = 0; attempt < attempts; attempt++) {
      const outcome = await this.recorded(process, host, key, { f: 'get', value: null }, this.dice);
      if (outcome.type === 'ok') return true;
      await pause(NO_HOST_PAUSE_MS);
    }
    return false;
  }
}

function keyOf(group: Group): string {
  return `${group.name}/${group.generation}`;
}

function outcomeOf(call: Call, answer: Answer): Outcome {
  const { status, body, etag } = answer;
  switch (call.f) {
    case 'get':
      if (status === 200) return { type: 'ok', value: body, etag };
      return status === 404 ? { type: 'ok', value: null } : { type: 'fail' };
    case 'cas':
      if (status === 412) return { type: 'ok', value: false };
      return status === 200 ? { type: 'ok', value: true } : refusal(answer);
    case 'delete':
      return status === 200 || status === 404 ? { type: 'ok', value: null } : refusal(answer);
    case 'put':
      return status === 200 ? { type: 'ok', value: call.value, etag } : refusal(answer);
  }
}

function refusal(answer: Answer): Outcome {
  return { type: isNotApplied(answer) ? 'fail' : 'info' };
}

/** The server says so; a request that it calls wrong would be a mistake of this script. */
function isNotApplied({ status, body }: Answer): boolean {
  if (status >= 400 && status < 500) throw new Error(`a request of the workload is wrong: ${status} ${body}`);
  try {
    return (JSON.parse(body) as { outcome?: string }).outcome === 'not-applied';
  } catch {
    return false;
  }
}
