import type { Locality } from '../core/reporter-object.ts';
import type { EnvoyFacts } from '../core/reporter-status.ts';
import { showable } from '../core/text.ts';
import type { NodeMessage } from './proto.ts';

/** As the CRD bounds each of these texts; in UTF-16 units, so at most as many characters. */
const LONGEST = 256;

/** What a Node tells beside who it is. Nothing in it is worth refusing a reporter for: it is cut and cleaned instead. */
export function envoyFacts({
  locality,
  user_agent_version,
  user_agent_build_version,
}: NodeMessage): EnvoyFacts {
  // On the wire the two are one choice: Envoy sends numbers, another client may send text.
  const built = user_agent_build_version?.version;
  const version =
    built === undefined
      ? text(user_agent_version)
      : [built.major_number, built.minor_number, built.patch].map((part) => part ?? 0).join('.');
  const region = text(locality?.region);
  const zone = text(locality?.zone);
  const subZone = text(locality?.sub_zone);
  const parts: Locality = {
    ...(region === undefined ? {} : { region }),
    ...(zone === undefined ? {} : { zone }),
    ...(subZone === undefined ? {} : { subZone }),
  };
  return { version, locality: Object.keys(parts).length === 0 ? undefined : parts };
}

function text(told: string | undefined): string | undefined {
  return told === undefined || told === '' ? undefined : showable(told, LONGEST);
}
