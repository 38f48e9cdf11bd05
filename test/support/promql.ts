/** Metrics and labels of PromQL expressions, parsed with the grammar of Prometheus' own editor. */
import { parser } from '@prometheus-io/lezer-promql';

/** The metrics and labels of an expression. */
export interface Query {
  /** Metric names, including suffixes such as `_bucket`. */
  readonly metrics: readonly string[];
  /** Labels in matchers and in `by`. */
  readonly labels: readonly string[];
}

/** Parses an expression. @throws Error with the position when it is invalid PromQL */
export function parsePromql(expression: string): Query {
  const metrics: string[] = [];
  const labels: string[] = [];
  const cursor = parser.parse(expression).cursor();
  do {
    const text = expression.slice(cursor.from, cursor.to);
    if (cursor.type.isError) throw new Error(`invalid PromQL at character ${cursor.from}: ${expression}`);
    if (cursor.name === 'VectorSelector') {
      const name = /^[A-Za-z_:][A-Za-z0-9_:]*/.exec(text)?.[0];
      if (name === undefined) throw new Error(`a selector without a metric: ${text}`);
      metrics.push(name);
    }
    if (cursor.name === 'LabelName') labels.push(text);
  } while (cursor.next());
  return { metrics, labels };
}
