/** Certificates for the examples of `examples/`. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createCertificateAuthority } from '../control-plane/certificates.ts';

/** Writes the certificates that the examples of `examples/` name, and returns the file for each of their paths. */
export async function writeEnvoyCertificates(folder: string): Promise<Record<string, string>> {
  const authority = createCertificateAuthority();
  const { cert, key } = authority.issue({
    dnsNames: ['responder.example.com'],
    uris: ['spiffe://example.com/envoy/responder-0'],
  });
  const files: Record<string, string> = {};
  for (const [name, text] of Object.entries({ 'tls.crt': cert, 'tls.key': key, 'ca.crt': authority.ca })) {
    const path = join(folder, name);
    await writeFile(path, text);
    for (const use of ['tunnels', 'reporter']) files[`/etc/envoy/${use}/${name}`] = path;
  }
  return files;
}
