/** A strict reader of Prometheus' text format (version 0.0.4): throws at anything that a server would refuse or misread. */
import assert from 'node:assert/strict';

export interface ExpositionSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Family {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly samples: ExpositionSample[];
}

const SAMPLE =
  /^([a-zA-Z_:][\w:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|NaN|[+-]Inf)$/;

export function parseExposition(text: string): Map<string, Family> {
  assert.ok(text.endsWith('\n'), 'the last line ends');
  const families = new Map<string, Family>();
  const seen = new Set<string>();
  let help: [name: string, text: string] | undefined;
  let family: Family | undefined;
  for (const line of text.slice(0, -1).split('\n')) {
    const helpLine = /^# HELP (\S+) (.+)$/.exec(line);
    const typeLine = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(line);
    if (helpLine !== null) help = [helpLine[1], helpLine[2]];
    else if (typeLine !== null) {
      const [, name, type] = typeLine;
      assert.equal(help?.[0], name, `help stands before the type of ${name}`);
      assert.ok(!families.has(name), `${name} comes once`);
      family = { name, type, help: help[1], samples: [] };
      families.set(name, family);
    } else {
      const match = SAMPLE.exec(line);
      assert.ok(match, `a sample: ${line}`);
      assert.ok(family, 'a sample has a type');
      const [, name, labelText = '', value] = match;
      const suffixes = family.type === 'histogram' ? ['_bucket', '_sum', '_count'] : [''];
      assert.ok(
        suffixes.some((suffix) => name === family!.name + suffix),
        `${name} belongs to ${family.name}`,
      );
      assert.ok(!seen.has(`${name}{${labelText}}`), `${line} comes once`);
      seen.add(`${name}{${labelText}}`);
      const labels = Object.fromEntries(
        [...labelText.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, label, text_]) => [label, text_]),
      );
      family.samples.push({ name, labels, value: Number(value.replace('Inf', 'Infinity')) });
    }
  }
  for (const { type, samples, name } of families.values()) {
    if (type === 'counter') assert.ok(name.endsWith('_total'), `the counter ${name} ends with _total`);
    if (type === 'histogram') checkHistogram(samples);
  }
  return families;
}

/** Buckets are cumulative, and the last one is the count. */
function checkHistogram(samples: readonly ExpositionSample[]): void {
  const keyOf = ({ labels }: ExpositionSample): string => JSON.stringify({ ...labels, le: undefined });
  for (const key of new Set(samples.map(keyOf))) {
    const own = samples.filter((sample) => keyOf(sample) === key);
    const buckets = own.filter(({ name }) => name.endsWith('_bucket'));
    let before = 0;
    let bound = Number.NEGATIVE_INFINITY;
    for (const { labels, value } of buckets) {
      const le = Number(labels['le'].replace('Inf', 'Infinity'));
      assert.ok(le > bound && value >= before, `buckets grow: ${key}`);
      bound = le;
      before = value;
    }
    assert.equal(bound, Number.POSITIVE_INFINITY);
    assert.equal(own.find(({ name }) => name.endsWith('_count'))?.value, before);
  }
}
