/** The type of ReverseTunnels before a name, as `kubectl get` accepts it and `-o name` prints it. */
const TYPE = /^(?:rt|reversetunnels?)(?:(?:\.v1alpha1)?\.reverse-tunnel\.io)?$/i;

/**
 * Reads the names of tunnels from a command line: NAME or TYPE/NAME, such as `reversetunnel.reverse-tunnel.io/NAME`.
 *
 * @returns the names in the given order, with duplicates; or one line per argument that is neither
 */
export function readTunnelNames(
  operands: readonly string[],
): { readonly names: readonly string[] } | { readonly errors: readonly string[] } {
  const names: string[] = [];
  const errors: string[] = [];
  for (const operand of operands) {
    const [type = '', ...rest] = operand.split('/');
    const [name = ''] = rest;
    if (rest.length === 0 && operand !== '') names.push(operand);
    else if (rest.length === 1 && name !== '' && TYPE.test(type)) names.push(name);
    else errors.push(`${JSON.stringify(operand)} must be the name of a tunnel, or reversetunnel/NAME`);
  }
  return errors.length > 0 ? { errors } : { names };
}
