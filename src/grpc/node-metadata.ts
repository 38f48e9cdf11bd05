import type { Locality } from '../core/reporter-object.ts';
import type { EnvoyMetadata } from '../core/reporter-status.ts';
import { sanitize } from '../core/text.ts';
import type { NodeMessage } from './proto.ts';

/** As the CRD bounds each of these texts; in UTF-16 units, so at most as many characters. */
const MAX_LENGTH = 256;

/** What a Node tells beside who it is. Nothing in it is worth refusing a reporter for: it is cut and cleaned instead. */
export function envoyMetadata({
  locality,
  user_agent_version,
  user_agent_build_version,
}: NodeMessage): EnvoyMetadata {
  // On the wire the two are one choice: Envoy sends numbers, another client may send text.
  const buildVersion = user_agent_build_version?.version;
  const version =
    buildVersion === undefined
      ? sanitizedText(user_agent_version)
      : [buildVersion.major_number, buildVersion.minor_number, buildVersion.patch]
          .map((part) => part ?? 0)
          .join('.');
  const region = sanitizedText(locality?.region);
  const zone = sanitizedText(locality?.zone);
  const subZone = sanitizedText(locality?.sub_zone);
  const fields: Locality = {
    ...(region === undefined ? {} : { region }),
    ...(zone === undefined ? {} : { zone }),
    ...(subZone === undefined ? {} : { subZone }),
  };
  return { version, locality: Object.keys(fields).length === 0 ? undefined : fields };
}

function sanitizedText(value: string | undefined): string | undefined {
  return value === undefined || value === '' ? undefined : sanitize(value, MAX_LENGTH);
}
