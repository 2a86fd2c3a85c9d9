/** Draws comparisons as an SVG: for each work, what both reached, as bars; each pair to a scale of its own. */
import { short } from './report.ts';

export interface ChartRow {
  readonly label: string;
  readonly ours: number;
  readonly theirs: number;
}

export interface Panel {
  readonly title: string;
  readonly rows: readonly ChartRow[];
}

export interface Chart {
  readonly title: string;
  readonly footer: string;
  readonly names: readonly [ours: string, theirs: string];
  readonly panels: readonly Panel[];
}

const WIDTH = 860;
const MARGIN = 20;
const LABEL_WIDTH = 220;
const VALUE_WIDTH = 130;
const BAR_WIDTH = WIDTH - 2 * MARGIN - LABEL_WIDTH - VALUE_WIDTH;
const BAR_HEIGHT = 13;
const ROW_HEIGHT = 2 * BAR_HEIGHT + 12;
const TITLE_HEIGHT = 34;
/** Both are told apart on white and on black, and without colour by their order. */
const COLOURS: readonly [string, string] = ['#2f6fb0', '#c58a2d'];
const TEXT = '#777';

const escape = (text: string): string => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

function text(x: number, y: number, content: string, extra = ''): string {
  return `<text x="${x}" y="${y}" fill="${TEXT}" ${extra}>${escape(content)}</text>`;
}

/** Length of a bar: of the pair's greater value, the whole width. */
export function barWidth(value: number, row: ChartRow): number {
  const greatest = Math.max(row.ours, row.theirs);
  return greatest > 0 ? Math.round((value / greatest) * BAR_WIDTH) : 0;
}

export function drawChart(chart: Chart): string {
  const parts: string[] = [];
  let y = MARGIN + 12;
  parts.push(text(MARGIN, y, chart.title, 'font-weight="bold" font-size="15"'));
  y += 22;
  chart.names.forEach((name, i) => {
    const x = MARGIN + i * 300;
    parts.push(`<rect x="${x}" y="${y - 10}" width="12" height="12" fill="${COLOURS[i]}"/>`, text(x + 18, y, name));
  });
  y += 8;
  for (const { title, rows } of chart.panels) {
    y += TITLE_HEIGHT;
    parts.push(text(MARGIN, y - 10, title, 'font-weight="bold"'));
    for (const row of rows) {
      parts.push(text(MARGIN, y + BAR_HEIGHT + 4, row.label));
      [row.ours, row.theirs].forEach((value, i) => {
        const top = y + i * (BAR_HEIGHT + 1);
        const width = barWidth(value, row);
        const x = MARGIN + LABEL_WIDTH;
        const ratio = i === 0 && row.theirs > 0 ? `  (${(row.ours / row.theirs).toPrecision(2)}×)` : '';
        parts.push(
          `<rect x="${x}" y="${top}" width="${width}" height="${BAR_HEIGHT}" fill="${COLOURS[i]}"/>`,
          text(x + width + 6, top + BAR_HEIGHT - 2, `${short(value)}${ratio}`),
        );
      });
      y += ROW_HEIGHT;
    }
  }
  y += MARGIN;
  parts.push(text(MARGIN, y, chart.footer, 'font-size="10"'));
  const height = y + MARGIN;
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" ` +
    `font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="${escape(chart.title)}">\n` +
    `${parts.join('\n')}\n</svg>\n`
  );
}
