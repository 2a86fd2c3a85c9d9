/** What an option may be, and the check that says which one is not. */
import { DrakkarError } from './errors.ts';
import { ADDRESS_MAX_BYTES, MEMBERS_MAX } from './wire/limits.ts';
import { CODEC_NAME_MAX, isCodecName, type SnapshotCodec } from './rsm/codec.ts';
import { isHostId } from './transport/target.ts';

export interface Rule {
  readonly required?: boolean;
  /** What is allowed, for the message. */
  readonly allowed: string;
  readonly accepts: (value: unknown) => boolean;
}

export const isInteger = (min: number, max: number): Rule => ({
  allowed: `a whole number from ${min} to ${max}`,
  accepts: (value) => Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max,
});
export const isBoolean: Rule = { allowed: 'true or false', accepts: (value) => typeof value === 'boolean' };
export const isFunction: Rule = { allowed: 'a function', accepts: (value) => typeof value === 'function' };
export const isObject: Rule = { allowed: 'an object', accepts: (value) => typeof value === 'object' && value !== null };
export const isText: Rule = {
  allowed: 'a string that is not empty',
  accepts: (value) => typeof value === 'string' && value.length > 0 && !value.includes('\0'),
};
export const isAddress: Rule = {
  allowed: '"host:port" with a port from 0 to 65535',
  accepts: (value) => typeof value === 'string' && isHostPort(value),
};
export const isLogger: Rule = {
  allowed: 'an object with debug, info, warn and error',
  accepts: (value) =>
    typeof value === 'object' &&
    value !== null &&
    ['debug', 'info', 'warn', 'error'].every(
      (level) => typeof (value as Record<string, unknown>)[level] === 'function',
    ),
};
export const isCodecs: Rule = {
  allowed: `codecs with a name each (1 to ${CODEC_NAME_MAX} of a-z, 0-9, -), compress and uncompress`,
  accepts: (value) =>
    Array.isArray(value) &&
    value.every(
      (codec: Partial<SnapshotCodec> | null) =>
        isCodecName(codec?.name) && typeof codec?.compress === 'function' && typeof codec.uncompress === 'function',
    ),
};
export const isMembers: Rule = {
  allowed: `replica ids from 1 with one distinct "host:port" or host id each, at most ${MEMBERS_MAX}`,
  accepts: (value) => {
    if (typeof value !== 'object' || value === null) return false;
    const pairs = Object.entries(value);
    return (
      pairs.length >= 1 &&
      pairs.length <= MEMBERS_MAX &&
      pairs.every(
        ([id, address]) =>
          /^[1-9]\d{0,15}$/.test(id) &&
          Number.isSafeInteger(Number(id)) &&
          typeof address === 'string' &&
          (isHostPort(address) || isHostId(address)),
      ) &&
      new Set(pairs.map(([, address]) => address)).size === pairs.length
    );
  },
};

export const isTarget: Rule = {
  allowed: '"host:port" or a host id',
  accepts: (value) => typeof value === 'string' && (isHostPort(value) || isHostId(value)),
};
export const isMembersOrJoin: Rule = {
  allowed: `'join', or ${isMembers.allowed}`,
  accepts: (value) => value === 'join' || isMembers.accepts(value),
};

export function isHostPort(text: string): boolean {
  const match = /^(\[[0-9A-Fa-f:.]+\]|[^\s:[\]]+):(\d{1,5})$/.exec(text);
  return match !== null && text.length <= ADDRESS_MAX_BYTES && Number(match[2]) <= 65535;
}

export const required = (rule: Rule): Rule => ({ ...rule, required: true });
export const MAX_ID = Number.MAX_SAFE_INTEGER;

/** Never shown, not even in part, unless there is nothing in it. */
const SECRETS: ReadonlySet<string> = new Set(['key', 'keys']);

export function check(what: string, options: unknown, rules: Readonly<Record<string, Rule>>): void {
  if (typeof options !== 'object' || options === null) {
    throw new DrakkarError('ERR_INVALID_OPTION', `${what}: expected an object with options, got ${show(options)}`);
  }
  for (const name of Object.keys(options)) {
    if (!(name in rules)) {
      const names = Object.keys(rules).join(', ');
      throw new DrakkarError('ERR_INVALID_OPTION', `${what}: there is no option ${name}; there are ${names}`);
    }
  }
  for (const [name, rule] of Object.entries(rules)) {
    const value = (options as Record<string, unknown>)[name];
    if (value === undefined && rule.required !== true) continue;
    if (value === undefined || !rule.accepts(value)) {
      throw new DrakkarError(
        'ERR_INVALID_OPTION',
        `${what}: ${name} is ${SECRETS.has(name) ? hide(value) : show(value)}; expected ${rule.allowed}`,
      );
    }
  }
}

export function show(value: unknown): string {
  if (typeof value === 'function') return 'a function';
  try {
    return (JSON.stringify(value) ?? String(value)).slice(0, 200);
  } catch {
    return String(value);
  }
}

function hide(value: unknown): string {
  return value === undefined || (Array.isArray(value) && value.length === 0) ? show(value) : 'something else';
}
