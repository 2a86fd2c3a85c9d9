/** What a config change makes of a membership, held against a plain model; and its entry on the wire. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Refusal, changeMembership } from '../../src/rsm/membership.ts';
import {
  decodeConfigChange,
  decodeConfigChangeEntry,
  encodeConfigChange,
  type ConfigChange,
} from '../../src/wire/config-change.ts';
import { addressIn, initialMembership, memberIds, type Membership } from '../../src/wire/membership.ts';

const change: fc.Arbitrary<ConfigChange> = fc.record({
  kind: fc.constantFrom('add', 'add', 'remove', 'promote'),
  replicaId: fc.integer({ min: 1, max: 9 }),
  address: fc.integer({ min: 1, max: 9 }).map((host) => `host${host}:1`),
  role: fc.constantFrom('voter', 'non-voting', 'witness'),
  autoPromote: fc.boolean(),
  configChangeIndex: fc.constantFrom(0, 0, 0, 1, 2),
});

/** One row for each id: what it is now, or that it was removed. */
type Model = Map<number, { role: ConfigChange['role'] | 'removed'; address: string }>;

const modelOf = (membership: Membership): Model => {
  const rows: Model = new Map();
  for (const [id, address] of membership.voters) rows.set(id, { role: 'voter', address });
  for (const [id, address] of membership.nonVotings) rows.set(id, { role: 'non-voting', address });
  for (const [id, address] of membership.witnesses) rows.set(id, { role: 'witness', address });
  for (const id of membership.removed) rows.set(id, { role: 'removed', address: '' });
  return rows;
};

/** Applies what must be applied; false when it must be refused. */
function applyToModel(rows: Model, { kind, replicaId, address, role }: ConfigChange): boolean {
  const row = rows.get(replicaId);
  const voters = [...rows.values()].filter((other) => other.role === 'voter').length;
  if (kind === 'add') {
    if (row !== undefined || [...rows.values()].some((other) => other.address === address)) return false;
    rows.set(replicaId, { role, address });
    return true;
  }
  if (row === undefined || row.role === 'removed') return false;
  if (kind === 'promote') {
    if (row.role !== 'non-voting') return false;
    row.role = 'voter';
    return true;
  }
  if (row.role === 'voter' && voters === 1) return false;
  rows.set(replicaId, { role: 'removed', address: '' });
  return true;
}

test('any sequence of changes does what a table of all ids says', () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 60 }), (changes) => {
      let membership = initialMembership([
        [1, 'host1:1'],
        [2, 'host2:1'],
      ]);
      const rows = modelOf(membership);
      let index = 0;
      for (const each of changes) {
        index++;
        const isStale = each.configChangeIndex !== 0 && each.configChangeIndex !== membership.configChangeIndex;
        const isAccepted = !isStale && applyToModel(rows, each);
        const voters = membership.voters.size + membership.witnesses.size;
        const changed = changeMembership(membership, each, index);
        assert.equal(typeof changed !== 'number', isAccepted, JSON.stringify(each));
        if (typeof changed === 'number') {
          if (isStale) assert.equal(changed, Refusal.Stale);
          continue;
        }
        membership = changed;
        assert.equal(membership.configChangeIndex, index);
        assert.deepEqual(modelOf(membership), rows);
        assert.ok(membership.voters.size >= 1);
        assert.ok(Math.abs(membership.voters.size + membership.witnesses.size - voters) <= 1, 'one voter at a time');
        for (const id of membership.autoPromoted) assert.ok(membership.nonVotings.has(id));
        for (const id of membership.removed) assert.equal(addressIn(membership, id), undefined);
        assert.deepEqual(
          memberIds(membership),
          [...memberIds(membership)].sort((a, b) => a - b),
        );
      }
    }),
  );
});

test('a change and its entry survive the wire', () => {
  fc.assert(
    fc.property(change, (given) => {
      const base = initialMembership([[1, 'host1:1']]);
      assert.deepEqual(decodeConfigChange(encodeConfigChange(given)), { ...given });
      assert.deepEqual(decodeConfigChangeEntry(encodeConfigChange(given, base)), { change: { ...given }, base });
      assert.throws(() => decodeConfigChangeEntry(encodeConfigChange(given)), { code: 'ERR_FRAME' });
    }),
  );
  for (const bytes of [
    '',
    '{}',
    'null',
    '[]',
    '{"k":"add","i":0}',
    '{"k":"crown","i":1,"a":"","l":"voter","p":false,"c":0}',
  ])
    assert.throws(() => decodeConfigChange(new TextEncoder().encode(bytes)), { code: 'ERR_FRAME' });
});
