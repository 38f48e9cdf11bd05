import { truncateList } from '../cli/format.ts';
import type { DoctorInputs, MutatingAdmission } from './inputs.ts';

/** The kinds that show tunnels and reporters, by their plural. */
export const MIRRORED_KINDS = ['reversetunnels', 'reversetunnelreporters', 'reversetunnelslices'] as const;

/** Returns which webhooks and policies to change because one of them rewrites objects of these kinds. */
export function rewriteRemediation(
  { mutatingAdmission }: Pick<DoctorInputs, 'mutatingAdmission'>,
  plurals: readonly string[],
): string {
  if ('failure' in mutatingAdmission)
    return `exclude the group reverse-tunnel.io from the webhook or policy (not listed: ${mutatingAdmission.failure})`;
  const matching = admissionOf(mutatingAdmission.value, plurals);
  if (matching.length === 0)
    return 'no mutating webhook or policy matches reverse-tunnel.io: compare the CRDs, or look for a proxy of the API server';
  return `exclude the group reverse-tunnel.io from what matches it: ${describeAdmission(matching)}`;
}

/** Returns what matches one of the kinds or its status, with these resources only. */
export function admissionOf(
  all: readonly MutatingAdmission[],
  plurals: readonly string[],
): readonly MutatingAdmission[] {
  return all.flatMap((admission) => {
    const resources = admission.resources.filter((name) => plurals.includes(name.split('/')[0] ?? name));
    return resources.length === 0 ? [] : [{ ...admission, resources }];
  });
}

/** Names webhooks and policies with the resources that they match. */
export function describeAdmission(matching: readonly MutatingAdmission[]): string {
  const names = matching.map(
    ({ kind, name, webhook, resources }) =>
      `${kind} ${name} (${webhook === undefined ? '' : `webhook ${webhook}, `}${resources.join(', ')})`,
  );
  return truncateList(names);
}
