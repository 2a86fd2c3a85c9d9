/** `npm run bench:chart`: draws recorded comparisons, by default those of bench/results as docs/performance.svg. */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Command, Option } from 'commander';
import { drawChart } from './chart.ts';
import { PEERS, type PeerName } from './contenders/index.ts';
import { chartOf, type Report } from './results.ts';

const command = new Command('npm run bench:chart --')
  .option(
    '--from <file>',
    'what bench:compare recorded',
    fileURLToPath(new URL('results/compare.json', import.meta.url)),
  )
  .option('--to <file>', 'SVG', fileURLToPath(new URL('../docs/performance.svg', import.meta.url)))
  .addOption(new Option('--against <peer>', 'which comparison').choices(PEERS).default('dragonboat'));
command.parse();
const options = command.opts<{ from: string; to: string; against: PeerName }>();
const report = JSON.parse(readFileSync(options.from, 'utf8')) as Report;
writeFileSync(options.to, drawChart(chartOf(report, options.against)));
