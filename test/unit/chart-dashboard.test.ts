import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { parsePromql } from '../support/promql.ts';

interface Panel {
  readonly id: number;
  readonly type: 'row' | 'stat' | 'timeseries';
  readonly title: string;
  readonly description?: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly datasource?: { readonly uid: string };
  readonly fieldConfig?: {
    readonly defaults: {
      readonly unit: string;
      readonly thresholds?: { readonly steps: readonly { readonly value: number | null }[] };
    };
    readonly overrides: readonly {
      readonly matcher: { readonly options: string };
      readonly properties: readonly { readonly id: string; readonly value: unknown }[];
    }[];
  };
  readonly targets?: readonly { readonly expr: string; readonly legendFormat?: string }[];
}

const FILES = join(import.meta.dirname, '..', '..', 'charts', 'reverse-tunnel-operator', 'files');
const dashboard = JSON.parse(readFileSync(join(FILES, 'dashboard.json'), 'utf8')) as { panels: Panel[] };
const { alerts } = parse(readFileSync(join(FILES, 'alerts.yaml'), 'utf8')) as { alerts: { expr: string }[] };
const rows = dashboard.panels.filter(({ type }) => type === 'row');
const graphs = dashboard.panels.filter(({ type }) => type !== 'row');

/** Units of Grafana that fit the result of an expression. CPU seconds per second are cores, which have no unit. */
function unitsFor(expression: string): readonly string[] {
  if (/_fds\{.*\/ .*_fds\{/.test(expression)) return ['percentunit'];
  if (/rate\(process_cpu_seconds_total/.test(expression)) return ['short'];
  if (/histogram_quantile\(.*_seconds_bucket/.test(expression)) return ['s'];
  if (/rate\(\w*api_writes_total/.test(expression)) return ['wps'];
  if (/rate\(rest_client_requests_total/.test(expression)) return ['reqps'];
  if (/rate\(/.test(expression)) return ['cps'];
  if (/_bytes\b/.test(expression)) return ['bytes'];
  if (/_seconds\b/.test(expression)) return ['s'];
  return ['short'];
}

describe('the dashboard', () => {
  it('has a description and the selected data source on every panel', () => {
    expect(graphs.length).to.be.greaterThan(25);
    for (const { title, description, datasource } of graphs) {
      expect(description ?? '', title).to.match(/^[A-Z0-9].{30,}\.$/);
      expect(datasource?.uid, title).to.equal('${datasource}');
    }
  });

  for (const { title, fieldConfig, targets = [] } of graphs) {
    it(`${title} has the unit of its values`, () => {
      for (const { expr, legendFormat } of targets) {
        const override = fieldConfig?.overrides.find(({ matcher }) =>
          new RegExp(matcher.options.slice(1, -1)).test(legendFormat ?? ''),
        );
        const unit =
          override?.properties.find(({ id }) => id === 'unit')?.value ?? fieldConfig?.defaults.unit;
        expect(unitsFor(expr), expr).to.include(unit);
      }
    });
  }

  it('has thresholds of its own on every stat panel: the default turns red at 80', () => {
    for (const { title, fieldConfig } of graphs.filter(({ type }) => type === 'stat')) {
      const steps = fieldConfig?.defaults.thresholds?.steps ?? [];
      expect(steps[0]?.value, title).to.equal(null);
      expect(
        steps.map(({ value }) => value),
        title,
      ).to.not.include(80);
    }
  });

  it('has rows, one of them for capacity, with unique panels that do not overlap', () => {
    expect(rows.map(({ title }) => title)).to.include('Capacity');
    expect(dashboard.panels[0]?.type).to.equal('row');
    expect(new Set(dashboard.panels.map(({ id }) => id)).size).to.equal(dashboard.panels.length);
    expect(new Set(dashboard.panels.map(({ title }) => title)).size).to.equal(dashboard.panels.length);
    const cells = new Set<string>();
    for (const { title, gridPos } of dashboard.panels) {
      expect(gridPos.x + gridPos.w, title).to.be.at.most(24);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x += 1) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y += 1) {
          expect(cells.has(`${x},${y}`), title).to.equal(false);
          cells.add(`${x},${y}`);
        }
      }
    }
  });

  it('shows every metric that an alert uses', () => {
    const metricsOf = (expression: string): readonly string[] =>
      parsePromql(expression.replaceAll('$__rate_interval', '5m')).metrics;
    const shown = new Set(
      graphs.flatMap(({ targets = [] }) => targets.flatMap(({ expr }) => metricsOf(expr))),
    );
    for (const { expr } of alerts) for (const metric of metricsOf(expr)) expect(shown).to.include(metric);
  });
});
