import { stringify } from 'yaml';

/**
 * Returns a value as YAML. Parsers of version 1.1, such as that of kubectl, read it as the same value: without quotes,
 * `no` would be a boolean, and `2026-11-23T05:00:00Z` a time.
 */
export function yamlText(value: unknown): string {
  return stringify(value, { version: '1.1' });
}
