/** Arguments of the commands, checked. */
import { InvalidArgumentError } from 'commander';

export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === '' || !Number.isSafeInteger(value) || value < min || value > max) {
      throw new InvalidArgumentError(`Expected a whole number from ${min} to ${max}.`);
    }
    return value;
  };
}

export const id: (text: string) => number = wholeNumber(1, Number.MAX_SAFE_INTEGER);

/** `1=host:port,4=host:port`, or host ids in place of addresses. */
export function members(text: string): Record<number, string> {
  const found: Record<number, string> = {};
  for (const part of text.split(',')) {
    const match = /^\s*([1-9]\d*)=(\S+)\s*$/.exec(part);
    if (match === null)
      throw new InvalidArgumentError('Expected replica ids with addresses, as in 1=host:port,4=host:port.');
    if (match[1] in found) throw new InvalidArgumentError(`Replica ${match[1]} is named twice.`);
    found[Number(match[1])] = match[2];
  }
  return found;
}

export function httpUrl(text: string): string {
  if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol))
    throw new InvalidArgumentError('Expected a URL, as in http://127.0.0.1:8080.');
  return text;
}
